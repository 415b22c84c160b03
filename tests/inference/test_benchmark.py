"""Test of `benchmarks.inference` with the mini model."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_quick_run_prints_all_numbers_in_its_last_line():
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.inference", "--quick", "--runs=1"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    numbers = json.loads(result.stdout.splitlines()[-1])
    assert numbers["variant"] == "mini" and numbers["peak_bytes"] > 1e8
    assert set(numbers["compile_s"]) == {"cold", "cached"}
    for batch in ("batch_1", "batch_2"):
        case = numbers[batch]
        assert set(case) == {"jax_s", "torch_s", "ratio", "real_time_factor", "parts"}
        assert set(case["parts"]) == {"wav2vec2", "emotion2vec", "dee_heads", "rest"}
        assert case["jax_s"] > 0 and (case["ratio"] is None) == (case["torch_s"] is None)
