"""Fits the identity of a person to a minute of speech with its motion, for `infer.py --identity=FILE`.

    deeptalk fit-identity --model=outputs/demo/model --audio=anna.wav --motion=anna.npz --out=anna.json

`python -m deeptalk_jax.tools.fit_identity` is the same command. The motion is an .npz file as infer.py or a face
tracker writes it (docs/motion_file.md), of the same length as the sound. The last fifth of both is held out. The last
line of the output is one JSON object with the errors of the mean identity and of the fitted identity on it.
"""

import json
from pathlib import Path

import numpy as np
from absl import flags

from deeptalk_jax.cli import run_tool
from deeptalk_jax.errors import UserError

_MODEL = flags.DEFINE_string("model", None, "Model directory written by training.")
_AUDIO = flags.DEFINE_string("audio", None, "Sound file of the person.")
_MOTION = flags.DEFINE_string("motion", None, "Motion of that speech, .npz.")
_OUT = flags.DEFINE_string("out", None, "Identity file to write, .json.")


def _fit_identity() -> None:
    out = Path(_OUT.value)
    if out.suffix != ".json":
        raise UserError(f"--out={out}: expected a file name that ends in .json")

    from deeptalk_jax.inference.api import DeepTalk
    from deeptalk_jax.inference.audio import read_audio
    from deeptalk_jax.inference.identity import write_identity
    from deeptalk_jax.inference.identity_fit import Recording, fit_identity, held_out_errors, split_recording
    from deeptalk_jax.inference.motion import read_motion
    from deeptalk_jax.inference.trained_generator import load_generator

    parts = load_generator(_MODEL.value)
    motion = read_motion(_MOTION.value, basis=parts.basis, of=f"the model {_MODEL.value}")
    recording = Recording(read_audio(Path(_AUDIO.value)), motion)
    try:
        fitted, held_out = split_recording(recording, parts.config.data.window_frames)
    except UserError as error:
        raise UserError(f"{_AUDIO.value} and {_MOTION.value}: {error}") from error
    identity = fit_identity(parts, [fitted])
    report = held_out_errors(DeepTalk.load(_MODEL.value), [held_out], identity.vector)
    best = int(np.argmin(identity.checks))
    report["set_aside_mm2"] = {
        "mean_identity": float(identity.checks[0]),
        "fitted_identity": float(identity.checks[best]),
    }
    report["num_steps"] = best
    write_identity(out, identity.vector, report)
    print(json.dumps(report))


def main() -> None:
    """Runs the tool and exits."""
    run_tool(_fit_identity, required=["model", "audio", "motion", "out"])


if __name__ == "__main__":
    main()
