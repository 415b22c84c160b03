"""A table of ablations: trains and evaluates a config with each of its ABLATIONS, over some seeds.

    python -m deeptalk_jax.studies.ablation --config=configs/motion_prior.py:variant=mini \
        --workdir=outputs/ablation --seeds=3

Writes ablation.md, ablation.csv and ablation.png after every run. The same command again goes on where it stopped;
docs/ablations.md says more.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from deeptalk_jax.cli import run_tool
from deeptalk_jax.errors import UserError
from deeptalk_jax.studies.ablation.hosts import share, this_host
from deeptalk_jax.studies.ablation.rows import Ablations, plan

_CONFIG = config_flags.DEFINE_config_file("config", None, "FILE[:variant=mini|base], of any stage.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Gets the table, and the work directory of every run in rows/."
)
_ROWS = flags.DEFINE_list(
    "rows", None, "Ablations to run, and `none` for the config as it is; by default all."
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "How many seeds, from config.seed on.", lower_bound=1)
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Split to evaluate on.")
_METRICS = flags.DEFINE_list(
    "metrics", None, "Metrics of the picture; by default the main ones of the stage."
)
_TABLE_ONLY = flags.DEFINE_bool("table_only", False, "Write the table of what is finished, and run nothing.")
_LIST = flags.DEFINE_bool("list", False, "Print the rows with what they change, and run nothing.")
_HOST_INDEX = flags.DEFINE_integer("host_index", None, "Which of --num_hosts this machine is, from 0.")
_NUM_HOSTS = flags.DEFINE_integer("num_hosts", None, "Machines that share the runs and the work directory.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Let jax.distributed say which machine of how many this is."
)
flags.mark_flag_as_required("config")


def _ablate() -> int:
    flag = flags.FLAGS["config"]
    path, _, arg = config_flags.get_config_filename(flag).partition(":")
    ablations = Ablations(path, arg, config_flags.get_override_values(flag))
    rows = ablations.choose(_ROWS.value)
    runs = plan(rows, ablations.seeds(_SEEDS.value))
    for run in runs:
        ablations.config(run)  # an override that would undo a row ends it here
    if _LIST.value:
        _print_rows(ablations, rows)
        return 0
    if not _WORKDIR.value:
        raise UserError("--workdir is not given; expected the directory for the table and its runs")

    from deeptalk_jax.studies.ablation.report import Report
    from deeptalk_jax.studies.ablation.results import read_failure, read_result
    from deeptalk_jax.studies.ablation.runs import execute

    host_index, num_hosts = this_host(_HOST_INDEX.value, _NUM_HOSTS.value, distributed=_DISTRIBUTED.value)
    root = Path(_WORKDIR.value)
    report = Report(ablations, root, _SPLIT.value, _METRICS.value)
    report.write()
    if _TABLE_ONLY.value:
        return 0
    own = share(runs, host_index, num_hosts)
    todo = [run for run in own if read_result(run, root, _SPLIT.value) is None]
    print(
        f"host {host_index + 1} of {num_hosts}: {len(own)} of {len(runs)} runs, {len(own) - len(todo)} finished",
        file=sys.stderr,
    )
    failed = execute(todo, ablations.config, root, _SPLIT.value, report.write)
    for run in failed:
        print(f"failed: {run}: {read_failure(run, root)}", file=sys.stderr)
    print(f"table: {report.path}")
    return int(bool(failed))


def _print_rows(ablations: Ablations, rows: tuple[str, ...]) -> None:
    width = max(map(len, rows))
    for row in rows:
        changes = ", ".join(f"{key}={value!r}" for key, value in ablations.changes(row).items())
        note = " (as the config has it anyway)" if ablations.is_redundant(row) else ""
        print(f"{row:{width}}  {changes}{note}".rstrip())


if __name__ == "__main__":
    run_tool(_ablate)
