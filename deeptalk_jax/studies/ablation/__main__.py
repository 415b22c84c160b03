"""Study: trains and evaluates a config with each of its ABLATIONS over several seeds, and tabulates the metrics.

    python -m deeptalk_jax.studies.ablation --config=configs/motion_prior.py:variant=mini \
        --workdir=outputs/ablation --seeds=3

Writes ablation.md, ablation.csv and ablation.png after each run. The same command resumes an interrupted study; see
docs/ablations.md.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from deeptalk_jax.cli import run_tool
from deeptalk_jax.errors import UserError
from deeptalk_jax.studies.ablation.hosts import share, this_host
from deeptalk_jax.studies.ablation.rows import Ablations, plan

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config of any stage: FILE[:variant=mini|base].")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory for the table, and for the work directories of the runs (in rows/)."
)
_ROWS = flags.DEFINE_list("rows", None, "Ablations to run; `none` is the unchanged config. Default: all.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Number of seeds, counted up from config.seed.", lower_bound=1)
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Split to evaluate on.")
_METRICS = flags.DEFINE_list("metrics", None, "Metrics to draw; default: the main metrics of the stage.")
_TABLE_ONLY = flags.DEFINE_bool(
    "table_only", False, "Write the table of the finished runs without running any."
)
_LIST = flags.DEFINE_bool("list", False, "Print each row with its changes without running any.")
_HOST_INDEX = flags.DEFINE_integer("host_index", None, "Index of this machine among --num_hosts, from 0.")
_NUM_HOSTS = flags.DEFINE_integer(
    "num_hosts", None, "Number of machines that share the runs and the work directory."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Get the index and the number of machines from jax.distributed."
)


def _ablate() -> int:
    flag = flags.FLAGS["config"]
    path, _, arg = config_flags.get_config_filename(flag).partition(":")
    ablations = Ablations(path, arg, config_flags.get_override_values(flag))
    rows = ablations.choose(_ROWS.value)
    runs = plan(rows, ablations.seeds(_SEEDS.value))
    for run in runs:
        ablations.config(run)  # raises if an override would undo a row
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
        note = " (same as the config without ablation)" if ablations.is_redundant(row) else ""
        print(f"{row:{width}}  {changes}{note}".rstrip())


if __name__ == "__main__":
    run_tool(_ablate, required=["config"])
