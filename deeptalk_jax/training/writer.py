"""Metrics of a run, as JSON lines for programs and as TensorBoard files for people."""

import json
from types import TracebackType

from etils import epath
from tensorboardX import SummaryWriter


class MetricWriter:
    """Appends to `metrics.jsonl` and to an event file in the work directory.

    Args:
        workdir: an existing directory.
    """

    def __init__(self, workdir: epath.PathLike):
        self._file = (epath.Path(workdir) / "metrics.jsonl").open("a")
        self._board = SummaryWriter(str(workdir), write_to_disk=True)

    def write(self, step: int, metrics: dict[str, float], *, prefix: str) -> None:
        """Writes numbers of one step; `prefix` is "train" or "eval"."""
        row = {"step": step, **{f"{prefix}/{name}": float(value) for name, value in metrics.items()}}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(name, value, step)

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._board.close()
