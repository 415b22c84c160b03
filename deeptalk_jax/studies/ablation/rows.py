"""Rows of an ablation table: a config for each entry of a config file's ABLATIONS and each seed."""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from deeptalk_jax.errors import UserError

PLAIN = "none"  # the row without an ablation


class Run(NamedTuple):
    """One training run of the table.

    Attributes:
        row: name of the ablation, or `PLAIN`.
        seed: `config.seed` of this run.
    """

    row: str
    seed: int

    def workdir(self, root: str | os.PathLike) -> Path:
        """Returns the work directory of the run, below that of the study."""
        return Path(root) / "rows" / self.row / f"seed_{self.seed}"

    def __str__(self) -> str:
        return f"{self.row}, seed {self.seed}"


class Ablations:
    """Configs of all rows, made from one config file.

    Args:
        path: config file with `ABLATIONS` (name -> overrides by dotted key) and `get_config(arg)`.
        arg: argument of `get_config` for all rows, such as `variant=mini`, or "".
        overrides: values for all rows, by dotted key.

    Attributes:
        rows: `PLAIN` and the names of the ablations, in the order of the file.
        stage: name of the stage that is ablated.

    Raises:
        UserError: the file has no `ABLATIONS`, or `arg` or `overrides` choose an ablation.
    """

    def __init__(self, path: str | os.PathLike, arg: str, overrides: Mapping[str, Any]):
        self.path, self.arg, self.overrides = Path(path), arg, dict(overrides)
        if "ablation" in overrides or any(item.startswith("ablation=") for item in arg.split(",")):
            raise UserError("--config chooses an ablation for all rows; choose with --rows instead")
        self._module = _load_module(self.path)
        if not isinstance(getattr(self._module, "ABLATIONS", None), Mapping):
            raise UserError(
                f"--config={path}: the file has no table ABLATIONS; expected a dict of overrides by name"
            )
        self.rows = (PLAIN, *self._module.ABLATIONS)
        self.stage = self._config(PLAIN).stage

    def changes(self, row: str) -> dict[str, Any]:
        """Returns the overrides of a row by dotted key; empty for `PLAIN`."""
        return {} if row == PLAIN else dict(self._module.ABLATIONS[row])

    def config(self, run: Run) -> ConfigDict:
        """Returns the locked config of a run.

        Raises:
            UserError: an override sets a key that the row changes.
        """
        config = self._config(run.row)
        with config.unlocked():
            config.seed = run.seed
        return config

    def is_redundant(self, row: str) -> bool:
        """Returns whether a row other than `PLAIN` leaves the config unchanged."""
        config, plain = self._config(row), self._config(PLAIN)
        with config.unlocked():
            config.ablation = plain.ablation
        return row != PLAIN and config == plain

    def seeds(self, num_seeds: int) -> range:
        """Returns `num_seeds` seeds, counted up from the config's seed."""
        first = self._config(PLAIN).seed
        return range(first, first + num_seeds)

    def choose(self, names: Sequence[str] | None) -> tuple[str, ...]:
        """Returns the rows with the given names, without repetitions; all rows for None.

        Raises:
            UserError: a name is unknown; the message lists the names of all rows.
        """
        for name in names or ():
            if name not in self.rows:
                raise UserError(f"--rows: unknown row {name!r}; there are: {', '.join(self.rows)}")
        return tuple(dict.fromkeys(names)) if names else self.rows

    def _config(self, row: str) -> ConfigDict:
        changes = self.changes(row)
        for key in self.overrides:
            for changed in changes:
                if f"{changed}.".startswith(f"{key}.") or f"{key}.".startswith(f"{changed}."):
                    raise UserError(
                        f"--config.{key} would undo the row {row!r}, which sets {changed}={changes[changed]!r}; "
                        "leave out the flag, or the row with --rows"
                    )
        config = self._module.get_config(",".join(filter(None, [self.arg, f"ablation={row}"])))
        config.update_from_flattened_dict(self.overrides)
        return config.lock()


def plan(rows: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """Returns all runs, sorted by seed first, so that a table of all rows is complete early."""
    return [Run(row, seed) for seed in seeds for row in rows]


def _load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("ablated_config", path)
    if spec is None or not path.is_file():
        raise UserError(f"--config={path}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
