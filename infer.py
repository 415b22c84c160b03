"""Animates sound files.

python infer.py --model=outputs/demo/model --audio=speech.wav --out=outputs/animated --formats=npz,mp4

More files and directories of sound files may follow --audio; files of similar length run together. Writes
OUT/<file stem>.npz (and .mp4) as soon as a file's batch is done; with --num_samples=N, OUT/<file stem>_0.npz and so
on, in one call. Exit status: 0 all files animated, 1 some failed, 2 nothing could be done.
"""

import functools
from pathlib import Path

from absl import flags

from deeptalk_jax.cli import run_tool
from deeptalk_jax.errors import UserError

_MODEL = flags.DEFINE_string("model", None, "Model directory, as written by training.")
_AUDIO = flags.DEFINE_multi_string(
    "audio", [], "Sound file or directory; more may follow as plain arguments."
)
_OUT = flags.DEFINE_string("out", None, "Directory for the results; made when missing.")
_FORMATS = flags.DEFINE_list("formats", ["npz"], "Any of npz, mp4.")
_IDENTITY = flags.DEFINE_string(
    "identity",
    None,
    "Whose face: a training identity, a blend as 3:0.5,7:0.5, or a .json of fit_identity; by default the mean.",
)
_TEMPERATURE_TOP = flags.DEFINE_float("temperature_top", 0.0, "Of the slow codes; 0: the most likely.")
_TEMPERATURE_BOTTOM = flags.DEFINE_float("temperature_bottom", 0.0, "Of the fast codes; 0: the most likely.")
_TOP_P = flags.DEFINE_float(
    "top_p", 1.0, "Draw codes from the most likely ones that reach this probability together."
)
_ALPHA = flags.DEFINE_float("alpha", 0.0, "Spread of the emotion; 0: its mean, 1: the learned Gaussian.")
_SEED = flags.DEFINE_integer("seed", 0, "Of everything random, for every file alike.")
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", 1, "Motions of every file, as NAME_0, NAME_1, ...: those of seed, seed + 1, ..."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Clips of 10 s that run together; fewer of longer ones.")
_HEAD = flags.DEFINE_string("head", None, "FLAME file or 'procedural'; by default the model's head.")
_EMOTION = {
    "emotion": "Emotions by name: happy, happy@2 or happy:0.8,surprised:0.2; see docs/emotion_control.md.",
    "emotion_audio": "Take the emotion from this sound file.",
    "emotion_motion": "Take the emotion from this motion, a .npz of infer.py.",
    "emotion_track": "CSV file of emotions over time; see docs/emotion_control.md.",
}
for _name, _help in _EMOTION.items():
    flags.DEFINE_string(_name, None, _help)
flags.mark_flags_as_required(["model", "out"])


def _infer(more_audio: list[str]) -> int:
    from deeptalk_jax.inference.api import DeepTalk, only_one
    from deeptalk_jax.inference.audio import find_audio_files
    from deeptalk_jax.inference.batch import animate_files, outcome_table
    from deeptalk_jax.inference.motion import FORMATS

    unknown = [kind for kind in _FORMATS.value if kind not in FORMATS]
    if unknown or not _FORMATS.value:
        raise UserError(f"--formats={','.join(_FORMATS.value)}: expected any of {', '.join(FORMATS)}")
    inputs = _AUDIO.value + more_audio
    if not inputs:
        raise UserError("give sound files or directories with --audio=")
    files = find_audio_files(inputs)
    sources = {name: flags.FLAGS[name].value for name in _EMOTION}
    only_one(**{f"--{name}": source for name, source in sources.items()})
    out = Path(_OUT.value)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be made ({error.strerror})") from error
    model = DeepTalk.load(_MODEL.value, head=_HEAD.value)
    settings = {
        "identity": _IDENTITY.value,
        "temperature_top": _TEMPERATURE_TOP.value,
        "temperature_bottom": _TEMPERATURE_BOTTOM.value,
        "top_p": _TOP_P.value,
        "alpha": _ALPHA.value,
        "seed": _SEED.value,
        "num_samples": _NUM_SAMPLES.value,
        "batch_size": _BATCH_SIZE.value,
    }
    model.check_settings(**settings)
    emotion = model.read_emotion(**sources, batch_size=_BATCH_SIZE.value)
    sample_each = functools.partial(model.sample_each, emotion=emotion, **settings)
    outcomes = animate_files(sample_each, files, out, _FORMATS.value)
    print(outcome_table(outcomes))
    return int(any(outcome.problem for outcome in outcomes))


if __name__ == "__main__":
    run_tool(_infer, takes_arguments=True)
