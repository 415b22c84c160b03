"""Study: what the face of a generator says, next to the truth and to its motion prior.

    python -m deeptalk_jax.studies.face_score --model=outputs/demo/model --data_dir=outputs/demo/data

Prints a table: gain and cosine of each emotion, named and heard, and of the motion prior; closures, rounding, blinks
and smoothness of the truth, of the prior and of the generator. docs/measures.md explains them. `eval.py` reports the
same among its metrics, after more work.
"""

import json
from pathlib import Path

from absl import flags

from deeptalk_jax.cli import run_tool
from deeptalk_jax.errors import UserError
from deeptalk_jax.files import replace_when_whole

_MODEL = flags.DEFINE_string("model", None, "Model directory, as written by training.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Root directory of the datasets; default: the one that the generator was trained on."
)
_SPLIT = flags.DEFINE_string("split", "test", "Split to take clips from.")
_CLIPS = flags.DEFINE_integer("clips", 96, "Number of clips, the first of the split.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "File to write the numbers to.")


def _face_score() -> None:
    from deeptalk_jax.studies.face_score.measure import score_model
    from deeptalk_jax.studies.face_score.table import lines

    report = score_model(_MODEL.value, _DATA_DIR.value, _SPLIT.value, _CLIPS.value)
    print("\n".join(lines(report)))
    if _JSON.value:
        path = Path(_JSON.value)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replace_when_whole(path) as temporary:
                temporary.write_text(json.dumps(report, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"--json={path}: cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    run_tool(_face_score, required=["model"])
