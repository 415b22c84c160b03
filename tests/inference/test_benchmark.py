"""Test of `benchmarks.inference` with the mini model."""

import json

from tests.support.commands import run_command


def test_quick_run_prints_all_numbers_in_its_last_line():
    flags = (
        "--xla_backend_optimization_level=0"  # in place of the flags of the suite, which ask for 8 devices
    )
    done = run_command("-m", "benchmarks.inference", "--quick", "--runs=1", XLA_FLAGS=flags)
    assert done.status == 0, done.stderr
    numbers = json.loads(done.stdout.splitlines()[-1])
    assert numbers["variant"] == "mini" and numbers["peak_bytes"] > 1e8
    assert set(numbers["compile_s"]) == {"cold", "cached"}
    for batch in ("batch_1", "batch_2"):
        case = numbers[batch]
        assert set(case) == {"jax_s", "torch_s", "ratio", "real_time_factor", "parts"}
        assert set(case["parts"]) == {"wav2vec2", "emotion2vec", "dee_heads", "rest"}
        assert case["jax_s"] > 0 and (case["ratio"] is None) == (case["torch_s"] is None)
