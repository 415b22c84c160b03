"""The command line of fit_identity; the fit itself is tested in tests/inference/test_identity_fit.py."""

from tests.support.commands import run_command


def test_an_identity_file_must_end_in_json():
    flags = ["--model=m", "--audio=a.wav", "--motion=a.npz", "--out=a.npz"]
    done = run_command("-m", "deeptalk_jax.tools.fit_identity", *flags)
    assert done.status == 2
    assert done.stderr.startswith("error: --out=a.npz: ")
    assert ".json" in done.stderr and done.stderr.count("\n") == 1
