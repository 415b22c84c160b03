"""`import deeptalk_jax.inference.api` loads no library of training, of figures, of resampling or of video."""

import subprocess
import sys

import pytest

HEAVY = (
    "tensorflow_datasets",
    "grain",
    "orbax",
    "optax",
    "matplotlib",
    "scipy.signal",
    "scipy.sparse",
    "scipy.spatial",
    "transformers",
    "av",
)


@pytest.mark.parametrize("module", ["deeptalk_jax.inference.api", "deeptalk_jax.inference.animate_files"])
def test_inference_imports_no_heavy_library(module):
    program = f"import sys, {module}; print(*sorted({set(HEAVY)!r} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []
