# `make demo` and `make test` work from a bare clone with Python 3.11; everything lands in .venv and outputs/.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
DEMO_DIR := outputs/demo
DEMO_FLAGS := $(if $(AUDIO),--audio="$(AUDIO)") $(if $(TEXT),--text="$(TEXT)") $(if $(EMOTION),--emotion="$(EMOTION)")

export DEEPTALK_CACHE_DIR ?= $(CURDIR)/.cache/jax
# Huge pages for large arrays (glibc on Linux; no effect elsewhere): else every step of a training touches its
# temporaries page by page. See docs/launch.md.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: setup test demo check lint clean

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
		uv pip install --quiet --python $(RUN) -r requirements.txt --editable ".[dev]"; \
	else \
		$(PYTHON) -m venv $(VENV) && \
		$(RUN) -m pip install --quiet --no-compile --disable-pip-version-check -r requirements.txt --editable ".[dev]"; \
	fi
	@touch $@

test: setup
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# AUDIO=speech.wav animates your own sound; TEXT="..." and EMOTION=sad speak a sentence of yours.
demo: setup
	$(RUN) -m deeptalk_jax.tools.demo --out=$(DEMO_DIR) $(DEMO_FLAGS)

check:
	$(RUN) -m deeptalk_jax.tools.demo_report $(DEMO_DIR)/report.json

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:
	rm -rf $(VENV) .cache outputs build *.egg-info
