"""Table, CSV file and chart of an ablation study, rewritten from all finished runs."""

from collections.abc import Sequence
from pathlib import Path

from deeptalk_jax.assembly.stage_table import stage_row
from deeptalk_jax.errors import UserError
from deeptalk_jax.files import replace_when_whole
from deeptalk_jax.studies.ablation.plot import draw
from deeptalk_jax.studies.ablation.results import Failure, Result, read_all
from deeptalk_jax.studies.ablation.rows import Ablations
from deeptalk_jax.studies.ablation.table import long_form, markdown, metric_names

# Overrides of paths, which the title leaves out.
_PLACES = ("data.data_dir", "upstream.", "pretrained.")


class Report:
    """Writes ablation.md, ablation.csv and ablation.png to the work directory of a study.

    Args:
        ablations: configs of the rows.
        root: work directory of the study.
        split: split that the metrics are computed on.
        metrics: metrics to draw; None for the main metrics of the stage.
    """

    def __init__(self, ablations: Ablations, root: Path, split: str, metrics: Sequence[str] | None):
        self._ablations, self._root, self._split, self._metrics = ablations, root, split, metrics

    @property
    def path(self) -> Path:
        """Path of the table in Markdown."""
        return self._root / "ablation.md"

    def write(self) -> None:
        """Writes all files from the finished runs of all rows, seeds and hosts.

        Raises:
            UserError: the directory cannot be written, a run was started with another config than its row has now, or
                no run has a metric that is to be drawn.
        """
        written = None
        # Another host may finish a run and write its table while this one writes an older one, so check again.
        while written != (texts := self._texts()):
            try:
                self._root.mkdir(parents=True, exist_ok=True)
                for name, content in texts.items():
                    self._replace(name, content.encode())
                self._draw()
            except OSError as error:
                raise UserError(
                    f"--workdir={self._root}: cannot be written ({error.strerror or error})"
                ) from error
            written = texts

    def _read(self) -> tuple[list[Result], list[Failure]]:
        return read_all(self._ablations, self._root, self._ablations.rows, self._split)

    @property
    def _title(self) -> str:
        setting = [*filter(None, [self._ablations.arg]), f"{self._split} split"]
        overrides = self._ablations.overrides.items()
        setting += [f"{key}={value}" for key, value in overrides if not key.startswith(_PLACES)]
        return f"Ablations of {self._ablations.path.name}: {', '.join(setting)}"

    def _texts(self) -> dict[str, str]:
        results, failures = self._read()
        changes = {row: self._ablations.changes(row) for row in self._ablations.rows}
        return {
            "ablation.md": markdown(self._title, results, failures, changes),
            "ablation.csv": long_form(results),
        }

    def _draw(self) -> None:
        results, _ = self._read()
        panels = self._panels(metric_names(results))
        if panels:
            self._replace("ablation.png", draw(results, panels, self._title))

    def _panels(self, there: Sequence[str]) -> list[str]:
        """Returns the metrics to draw, given those that the runs have."""
        if self._metrics is None:
            return [name for name in stage_row(self._ablations.stage).main_metrics if name in there]
        for name in self._metrics if there else ():
            if name not in there:
                raise UserError(f"--metrics: unknown metric {name!r}; there are: {', '.join(there)}")
        return [name for name in self._metrics if name in there]

    def _replace(self, name: str, content: bytes) -> None:
        with replace_when_whole(self._root / name) as temporary:
            temporary.write_bytes(content)
