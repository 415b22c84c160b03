"""Writes the metrics of a run as JSON lines (`metrics.jsonl`) and as TensorBoard event files."""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from etils import epath
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from deeptalk_jax.errors import UserError
from deeptalk_jax.files import is_remote, replace_when_whole

_FILE = "metrics.jsonl"
_UPLOAD_EVERY_S = 30


class MetricWriter:
    """Appends metrics to files in the work directory.

    Object stores cannot append. For a remote work directory the files grow in a local temporary directory, and whole
    copies are uploaded every 30 s and at the end.

    Args:
        workdir: an existing directory.
        first_step: number of steps taken already. Rows of later steps, left by a run that was killed after its last
            checkpoint, are removed.

    Raises:
        UserError: the directory cannot be written; also raised by `write`.
    """

    def __init__(self, workdir: epath.PathLike, *, first_step: int = 0):
        self._workdir = epath.Path(workdir)
        self._cleanup = ExitStack()
        self._uploaded_s = time.monotonic()
        self._remote = is_remote(workdir)
        self._local = (
            Path(self._cleanup.enter_context(tempfile.TemporaryDirectory()))
            if self._remote
            else Path(workdir)
        )
        with self._errors():
            if self._remote and (self._workdir / _FILE).exists():
                (self._local / _FILE).write_bytes((self._workdir / _FILE).read_bytes())
            _drop_later(self._local / _FILE, first_step)
            self._file = (self._local / _FILE).open("a")
            # SummaryWriter writes in a thread, and waits for it forever once the disk is full; EventsWriter does not.
            self._board = EventsWriter(str(self._local / "events"), f".{first_step}")
            restart = SessionLog(status=SessionLog.START)
            self._board.write_event(Event(wall_time=time.time(), step=first_step + 1, session_log=restart))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(f"{self._workdir}: metrics cannot be written ({error})") from error

    def has(self, step: int, prefix: str) -> bool:
        """Returns whether metrics of this step with this prefix are written."""
        with self._errors():
            rows = map(json.loads, (self._local / _FILE).read_text().splitlines())
            return any(row["step"] == step and any(x.startswith(f"{prefix}/") for x in row) for row in rows)

    def write(self, step: int, metrics: dict[str, float | None], *, prefix: str) -> None:
        """Writes the metrics of one step.

        Args:
            step: number of steps taken.
            metrics: numbers by name; None for unknown ones, which `metrics.jsonl` contains as null.
            prefix: "train", "validation" or "eval"; written in front of the names.

        Raises:
            UserError: a file cannot be written.
        """
        numbers = {
            f"{prefix}/{name}": value if value is None else float(value) for name, value in metrics.items()
        }
        scalars = [Summary.Value(tag=tag, simple_value=x) for tag, x in numbers.items() if x is not None]
        with self._errors():
            self._file.write(json.dumps({"step": step, **numbers}) + "\n")
            self._file.flush()
            self._board.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))
            self._board.flush()
            if self._remote and time.monotonic() - self._uploaded_s > _UPLOAD_EVERY_S:
                self._upload()

    def _upload(self) -> None:
        for file in self._local.iterdir():
            (self._workdir / file.name).write_bytes(file.read_bytes())
        self._uploaded_s = time.monotonic()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._cleanup, self._errors():
            self._file.close()
            self._board.close()
            if self._remote:
                self._upload()


def _drop_later(path: Path, step: int) -> None:
    """Removes rows of steps after `step`, and a last row that is incomplete."""
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= step]
    if kept != lines:
        with replace_when_whole(path) as temporary:
            temporary.write_bytes(b"".join(kept))
