"""Animates sound files.

python infer.py --model=outputs/demo/model --audio=speech.wav --out=outputs/animated --formats=npz,mp4

More sound files, or directories of them, may follow as plain arguments; files of similar length run together. Writes
OUT/<file stem>.npz (and .mp4) as soon as a file is done; with --num_samples=N it writes OUT/<file stem>_0.npz to
OUT/<file stem>_<N-1>.npz. Exit status: 0 if all files were animated, 1 if some failed, 2 if nothing could be started.
"""

import functools
from pathlib import Path

from absl import flags

from deeptalk_jax.cli import run_tool
from deeptalk_jax.errors import UserError

flags.DEFINE_string("model", None, "Model directory written by training.", required=True)
flags.DEFINE_string("out", None, "Output directory; created if missing.", required=True)
flags.DEFINE_multi_string("audio", [], "Sound file or directory; more may follow as plain arguments.")
flags.DEFINE_list("formats", ["npz"], "Output formats: npz (coefficients), mp4 (video).")
flags.DEFINE_string("head", None, "FLAME file or 'procedural'; by default the head of the model.")
_SETTINGS = [
    flags.DEFINE_string(
        "identity",
        None,
        "Speaker identity: a training identity, a blend such as 3:0.5,7:0.5, or a .json file of fit_identity; by "
        "default the mean of all training identities.",
    ),
    flags.DEFINE_float(
        "temperature_top", 0.0, "Sampling temperature of the slow codes; 0: most likely code."
    ),
    flags.DEFINE_float(
        "temperature_bottom", 0.0, "Sampling temperature of the fast codes; 0: most likely code."
    ),
    flags.DEFINE_float(
        "top_p", 1.0, "Nucleus probability that the codes to draw from reach together; 1: all."
    ),
    flags.DEFINE_float("alpha", 0.0, "Spread of the emotion; 0: its mean, 1: the learned Gaussian."),
    flags.DEFINE_integer("seed", 0, "Random seed, shared by all files."),
    flags.DEFINE_integer("num_samples", 1, "Motions per file; motion i is drawn with seed + i."),
    flags.DEFINE_integer("batch_size", 8, "Clips of 10 s that run together; fewer if clips are longer."),
]
# Flag, argument of `DeepTalk.emotion` and help of each source of an emotion.
_EMOTION = {
    "emotion": (
        "blend",
        "Named emotions: happy, happy@2 or happy:0.8,surprised:0.2; see docs/emotion_control.md.",
    ),
    "emotion_audio": ("audio", "Sound file to take the emotion from."),
    "emotion_motion": ("motion", "Motion to take the emotion from, an .npz of infer.py."),
    "emotion_track": ("track", "CSV file of emotions over time; see docs/emotion_control.md."),
}
for _name, (_, _help) in _EMOTION.items():
    flags.DEFINE_string(_name, None, _help)


def _infer(more_audio: list[str]) -> int:
    from deeptalk_jax.inference.animate_files import animate_files, outcome_table
    from deeptalk_jax.inference.api import DeepTalk
    from deeptalk_jax.inference.audio import find_audio_files
    from deeptalk_jax.inference.emotion_source import only_one
    from deeptalk_jax.inference.motion import FORMATS

    options = flags.FLAGS
    if not options.formats or not set(options.formats) <= set(FORMATS):
        raise UserError(f"--formats={','.join(options.formats)}: expected any of {', '.join(FORMATS)}")
    if not options.audio and not more_audio:
        raise UserError("no sound file is given; name sound files or directories with --audio=")
    files = find_audio_files(options.audio + more_audio)
    only_one(**{f"--{name}": options[name].value for name in _EMOTION})
    out = Path(options.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be created ({error.strerror})") from error
    model = DeepTalk.load(options.model, head=options.head)
    sources = {
        argument: options[name].value for name, (argument, _) in _EMOTION.items() if options[name].value
    }
    animate_each = functools.partial(
        model.animate_each,
        emotion=model.emotion(**sources, batch_size=options.batch_size) if sources else None,
        **{setting.name: setting.value for setting in _SETTINGS},
    )
    animate_each([])  # checks the settings, so that an error comes before the progress bar
    outcomes = animate_files(animate_each, files, out, options.formats)
    print(outcome_table(outcomes))
    return int(any(outcome.problem for outcome in outcomes))


if __name__ == "__main__":
    run_tool(_infer, takes_arguments=True)
