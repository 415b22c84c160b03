"""Animates sound files.

    deeptalk animate --model=outputs/demo/model --audio=speech.wav --out=outputs/animated --formats=npz,mp4

`python infer.py` in a clone takes the same flags.

More sound files, or directories of them, may follow as plain arguments; files of similar length run together. Writes
OUT/<file stem>.npz (and .mp4) as soon as a file is done; with --num_samples=N, OUT/<file stem>_0.npz and so on. The
sub-folders of a directory are repeated below OUT; where stems are equal, results have the whole file name (a.wav.npz).
Exit status: 0 if all files were animated, 1 if some failed, 2 if nothing could be started, 75 if Ctrl-C or SIGTERM
ended the run (the files that are done are listed, and the others leave nothing behind).
"""

import functools
from pathlib import Path

from absl import flags

from deeptalk_jax.cli import run_tool
from deeptalk_jax.errors import Interrupted, UserError
from deeptalk_jax.signals import received_signal

flags.DEFINE_string("model", None, "Model directory written by training.")
flags.DEFINE_string("out", None, "Output directory; created if missing.")
flags.DEFINE_multi_string("audio", [], "Sound file or directory; more may follow as plain arguments.")
flags.DEFINE_list(
    "formats",
    ["npz"],
    "npz (coefficients), mp4 (video), emotions.json, emotions.srt (emotion of the speech).",
)
flags.DEFINE_string(
    "head", None, "FLAME file of the basis of the model, or 'procedural'; default: its own head."
)
_IDENTITY = (
    "Speaker identity: a number, a blend such as 3:0.5,7:0.5, or a .json of fit_identity; default: mean."
)
# Arguments of `DeepTalk.animate_each`.
_SETTINGS = [
    flags.DEFINE_string("identity", None, _IDENTITY),
    flags.DEFINE_float("temperature_top", 0.0, "Temperature of the slow codes; 0: most likely code."),
    flags.DEFINE_float("temperature_bottom", 0.0, "Temperature of the fast codes; 0: most likely code."),
    flags.DEFINE_float("top_p", 1.0, "Total probability of the codes to draw from; 1: all codes."),
    flags.DEFINE_float("alpha", 0.0, "Spread of the emotion; 0: its mean, 1: the learned Gaussian."),
    flags.DEFINE_integer("seed", 0, "Random seed, shared by all files."),
    flags.DEFINE_integer("num_samples", 1, "Motions per file; motion i is drawn with seed + i."),
    flags.DEFINE_bool("blinks", None, "Adds blinks by rule; by default for models of the embedded head."),
    flags.DEFINE_integer("batch_size", 8, "Clips of 10 s that run together; fewer if clips are longer."),
]
# These are arguments of `DeepTalk.animate_each`, too; see docs/emotion_control.md.
_EMOTION = [
    flags.DEFINE_string("emotion", None, "Named emotions: happy, happy@2 or happy:0.8,surprised:0.2."),
    flags.DEFINE_string("emotion_audio", None, "Sound file to take the emotion from."),
    flags.DEFINE_string(
        "emotion_motion", None, "Motion to take the emotion from, .npz of infer.py or a tracker."
    ),
    flags.DEFINE_string("emotion_track", None, "CSV file of emotions over time."),
]


def _animate(more_audio: list[str]) -> int:
    from deeptalk_jax.inference.animate_files import animate_files, outcome_table
    from deeptalk_jax.inference.api import DeepTalk
    from deeptalk_jax.inference.emotion_classes import EMOTION_FORMATS
    from deeptalk_jax.inference.emotion_source import only_one
    from deeptalk_jax.inference.find_sounds import find_sounds
    from deeptalk_jax.inference.motion import check_formats

    options = flags.FLAGS
    check_formats(options.formats, EMOTION_FORMATS)
    only_one(**{f"--{flag.name}": flag.value for flag in _EMOTION})
    out = Path(options.out)
    sounds, left_out = find_sounds(options.audio + more_audio, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be created ({error.strerror})") from error
    model = DeepTalk.load(options.model, head=options.head)
    model.check_formats(options.formats)
    settings = {setting.name: setting.value for setting in _SETTINGS + _EMOTION}
    animate_each = functools.partial(model.animate_each, **settings)
    outcomes = animate_files(animate_each, sounds, out, options.formats, classify=model.classify_emotion)
    print(outcome_table(outcomes, left_out), flush=True)
    if len(outcomes) < len(sounds):
        missing = len(sounds) - len(outcomes)
        raise Interrupted(
            f"interrupted by {received_signal()}: {missing} of {len(sounds)} sounds are not done"
        )
    return int(any(outcome.problem for outcome in outcomes))


def main() -> None:
    """Runs the tool and exits."""
    run_tool(_animate, required=["model", "out"], takes_arguments=True)


if __name__ == "__main__":
    main()
