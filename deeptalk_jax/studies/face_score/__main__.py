"""Study: what the face of a generator says, next to the truth and to its motion prior.

    python -m deeptalk_jax.studies.face_score --model=outputs/demo/model --data_dir=outputs/demo/data

Prints a table: gain and cosine of each emotion, named and heard, and of the motion prior; closures, rounding, blinks
and smoothness of the truth, of the prior and of the generator.
"""

import json
from pathlib import Path

from absl import flags

from deeptalk_jax.cli import run_tool

_MODEL = flags.DEFINE_string("model", None, "Model directory, as written by training.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Root directory of the datasets; default: the one that the generator was trained on."
)
_SPLIT = flags.DEFINE_string("split", "test", "Split to take clips from.")
_CLIPS = flags.DEFINE_integer("clips", 96, "Number of clips, the first of the split.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "File to write the numbers to.")


def _lines(report):
    yield f"{'gain (cosine) at intensity':28s}" + "".join(f"{name:>12s}" for name in report["gain"]["named"])
    for source, table in report["gain"].items():
        for level in (2, 1, 0):
            cells = [(row["gain"][level], row["cosine"][level]) for row in table.values()]
            mean = sum(gain for gain, _ in cells) / len(cells)
            yield (
                f"{source + ' ' + str(level + 1):28s}"
                + "".join(f"{gain:6.2f}({cosine:4.2f})" for gain, cosine in cells)
                + f"   mean {mean:.2f}"
            )
    yield f"{'named: rises with intensity':28s}" + "".join(
        f"{row['rising'][0]:12.2f}" for row in report["gain"]["named"].values()
    )
    names = list(report["motions"])
    yield f"{'':28s}" + "".join(f"{name:>12s}" for name in names)
    keys = dict.fromkeys(key for name in names for key in report["motions"][name])
    for key in keys:
        yield f"{key:28s}" + "".join(
            f"{report['motions'][name][key]:12.3f}" if key in report["motions"][name] else f"{'':12s}"
            for name in names
        )


def _face_score() -> None:
    from deeptalk_jax.studies.face_score.measure import score_model

    report = score_model(_MODEL.value, _DATA_DIR.value, _SPLIT.value, _CLIPS.value)
    print("\n".join(_lines(report)))
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    run_tool(_face_score, required=["model"])
