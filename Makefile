# `make demo` and `make test` work from a fresh clone with Python 3.11. They write only to .venv, .cache and outputs.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
DEMO_DIR := outputs/demo
DEMO_FLAGS := $(if $(AUDIO),--audio="$(AUDIO)") $(if $(TEXT),--text="$(TEXT)") $(if $(EMOTION),--emotion="$(EMOTION)")

export DEEPTALK_CACHE_DIR ?= $(CURDIR)/.cache/jax
# Huge pages for large arrays save page faults in every training step (docs/launch.md). Only glibc on Linux reads this.
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

# AUDIO=speech.wav animates a recording, with EMOTION=sad with that emotion of the face; TEXT="..." and EMOTION=sad set
# the sentence that is synthesised instead.
demo: setup
	$(RUN) -m deeptalk_jax.tools.demo --out=$(DEMO_DIR) $(DEMO_FLAGS)

check:
	$(RUN) -m deeptalk_jax.tools.demo_report $(DEMO_DIR)/report.json

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:
	rm -rf $(VENV) .cache outputs build *.egg-info
