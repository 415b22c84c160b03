"""Study: does the mouth say what recordings with known phones say?

    python -m deeptalk_jax.studies.speech_score --model=outputs/demo/model --speech=recordings --out=outputs/speech

The folder holds sound files and `aligned.json`, a list with one entry per recording:

    {"name": "clip_01", "seconds": 2.1, "phones": [["SIL", 0.0, 0.2], ["HH", 0.2, 0.27], ["AA", 0.27, 0.41], ...]}

`name` is the file without its ending; phones are ARPAbet without stress, as forced aligners of English write them, with
start and end in seconds. Writes `speech_score.json` and the chart `speech_score.png` into --out, and prints the means:

* `jaw_target_correlation`: opening of the jaw against a smoothed openness of the phones.
* `closure_auc`: probability that the lip gap at the middle of p, b, m is below that at the middle of an open vowel.
* `closure_rate`: share of p, b, m whose smallest lip gap is under a quarter of the median gap of open vowels.
* `rounding_auc`: probability that the mouth is narrower at a rounded sound than at a spread one.
* `silence_ratio`: mean opening of the jaw in silences over 0.2 s over the mean of the recording.
* `lag_frames`: shift of the motion that correlates best with the phones; positive is late.
"""

import json

from absl import flags

from deeptalk_jax.cli import run_tool

_MODEL = flags.DEFINE_string("model", None, "Model directory, as written by training.")
_SPEECH = flags.DEFINE_string("speech", None, "Folder of recordings.")
_ALIGNED = flags.DEFINE_string(
    "aligned", None, "File with the times of the phones; default: aligned.json in the folder of recordings."
)
_OUT = flags.DEFINE_string("out", "outputs/speech", "Folder to write to.")
_EMOTION = flags.DEFINE_string("emotion", None, "Emotion of all motions, such as happy@2; default: as heard.")


def _speech_score() -> None:
    from pathlib import Path

    from deeptalk_jax.inference.api import DeepTalk
    from deeptalk_jax.studies.figure_file import write_figure
    from deeptalk_jax.studies.speech_score.chart import draw_scores
    from deeptalk_jax.studies.speech_score.measure import read_alignment, score_recordings

    speech = Path(_SPEECH.value)
    recordings = read_alignment(Path(_ALIGNED.value) if _ALIGNED.value else speech / "aligned.json")
    report = score_recordings(DeepTalk.load(_MODEL.value), speech, recordings, _EMOTION.value)
    write_figure(Path(_OUT.value) / "speech_score.png", report, draw_scores)
    shown = {key: value for key, value in report.items() if key not in ("recordings", "gaps")}
    print(json.dumps({key: round(value, 4) for key, value in shown.items()}))


if __name__ == "__main__":
    run_tool(_speech_score, required=["model", "speech"])
