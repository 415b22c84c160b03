"""The command line of fit_identity; the fit itself is tested in tests/inference/test_identity_fit.py."""

import subprocess
import sys


def test_an_identity_file_must_end_in_json():
    flags = ["--model=m", "--audio=a.wav", "--motion=a.npz", "--out=a.npz"]
    done = subprocess.run(
        [sys.executable, "-m", "deeptalk_jax.tools.fit_identity", *flags],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: --out=a.npz: an identity is written as .json")
