"""Trains and evaluates a stage: from a config to a model directory, and from a model directory to metrics.

`train.py` and `eval.py` call these two functions.
"""

import json
import os

import jax
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from deeptalk_jax.assembly.model_dir import (
    INDEX,
    check_variables,
    index_basis,
    load_part,
    read_index,
    save_model,
)
from deeptalk_jax.assembly.stage_table import stage_row
from deeptalk_jax.errors import UserError
from deeptalk_jax.evaluation.page import render_page
from deeptalk_jax.evaluation.result import Evaluation
from deeptalk_jax.files import replace_when_whole
from deeptalk_jax.head.load import basis_of_head
from deeptalk_jax.stages.base import PyTree, Stage, make_stage
from deeptalk_jax.stages.bases import check_bases
from deeptalk_jax.stages.inputs import check_run
from deeptalk_jax.stages.precompute import precompute_features
from deeptalk_jax.training.average import trained_variables
from deeptalk_jax.training.best import criterion_of
from deeptalk_jax.training.checkpoints import has_checkpoint, read_newest
from deeptalk_jax.training.config_check import check_config
from deeptalk_jax.training.loop import fit
from deeptalk_jax.training.step import stage_step
from deeptalk_jax.training.workdir import CONFIG_FILE, claim_workdir, metrics_file, read_config


def train(
    config: ConfigDict,
    workdir: epath.PathLike,
    *,
    profile_steps: tuple[int, int] | None = None,
    features_dir: str | os.PathLike | None = None,
    source: str = "",
) -> epath.Path:
    """Trains a stage and exports it; does nothing if the work directory already has a model of this many steps.

    A finished run with fewer steps than `config.num_steps` continues from its newest checkpoint and is exported anew.

    Args:
        config: resolved config of the stage.
        workdir: work directory, which may be in an object store (`gs://bucket/directory`).
        profile_steps: see `training.loop.fit`.
        features_dir: directory for precomputed features of frozen networks, see `precompute_features`.
        source: config file and changed keys for the report at the start, see `training.loop.fit`.

    Returns:
        The model directory, `workdir/model`.

    Raises:
        UserError: see `check_bases`, `make_stage`, `training.loop.fit` and `precompute_features`. Or the run
            should continue, but its checkpoints are gone.
        training.failures.NonFiniteError, errors.Interrupted: see `training.loop.fit`.
    """
    model = epath.Path(workdir) / "model"
    check_config(config)
    criterion_of(config.keep_best, stage_row(config.stage).main_metrics)
    check_run(workdir, config)
    if (model / INDEX).exists():
        steps = read_index(model)["parts"][stage_row(config.stage).exported_part]["config"]["num_steps"]
        if steps >= config.num_steps:
            return model
        if not has_checkpoint(epath.Path(workdir) / "checkpoints"):
            raise UserError(
                f"{workdir}: its {steps} steps cannot be continued to num_steps={config.num_steps}, because it has no "
                "checkpoint; give another --workdir with --config.init_from=DIR to start from its weights"
            )
    basis = basis_of_head(config.head)
    check_bases(config, basis, of=f"--config.head={config.head}")
    stage, features = make_stage(config), None
    if features_dir is not None:
        # Now, because it fails before hours of work if the directory cannot be written.
        claim_workdir(workdir, config, stage.input_digests())
        features = precompute_features(stage, features_dir)
    variables = fit(stage, config, workdir, features, profile_steps=profile_steps, source=source)
    if jax.process_index() == 0:
        save_model(model, stage.export_parts(variables), head=config.head, basis=basis)
        logging.info("%s: model written to %s", stage.name, model)
    return model


def evaluate(config: ConfigDict, workdir: epath.PathLike, split: str) -> dict[str, float]:
    """Evaluates the exported model of a work directory and writes the metrics to `metrics_file(workdir, split)`.

    A run without an exported model is evaluated at its newest checkpoint. Charts, if the stage has any, go to
    `workdir/eval`, see `write_evaluation`.

    Args:
        config: config of the stage; only its section `data` is used (and `upstream` for a run without an exported
            model), the rest comes from the run.
        workdir: work directory with an exported model or checkpoints.
        split: train, validation or test.

    Returns:
        The metrics by name, with the keys `stage` and `split` in front, and `step` for a checkpoint; the last key,
        `head`, says which masks the metrics depend on, if they do.

    Raises:
        UserError: there is neither an exported model nor a checkpoint, or the weights do not fit the config, or the
            data set has another basis than the model.
    """
    workdir = epath.Path(workdir)
    report = {"stage": config.stage, "split": split}
    if not (workdir / "model" / INDEX).exists() and has_checkpoint(workdir / "checkpoints"):
        stage, variables, report["step"] = _newest_checkpoint(config, workdir)
        print(f"{workdir} has no model yet: its checkpoint of step {report['step']} is evaluated", flush=True)
    else:
        stage, variables = exported_stage(config, workdir / "model")
    evaluation = stage.evaluate(variables, split)
    report |= evaluation.metrics
    if stage.uses_masks:
        report["head"] = stage.describe_head()
    write_evaluation(workdir / "eval", f"{stage.name}_{split}", evaluation)
    metrics_file(workdir, split).write_text(json.dumps(report, indent=2) + "\n")
    return report


def _newest_checkpoint(config: ConfigDict, workdir: epath.Path) -> tuple[Stage, PyTree, int]:
    """Returns the stage of an unfinished run, and the variables and the step of its newest checkpoint."""
    resolved = read_config(workdir)
    if resolved is None:
        raise UserError(f"{workdir}: not the work directory of a run (it has no {CONFIG_FILE})")
    for section in ("data", "upstream"):
        resolved[section].update(config[section])
    check_bases(resolved, basis_of_head(resolved.head), of=f"the run {workdir}")
    stage = make_stage(resolved)
    shapes = jax.eval_shape(stage_step(stage, resolved, stage.constants()).initial_state, jax.random.key(0))
    state = read_newest(workdir / "checkpoints", shapes)
    return stage, jax.device_get(trained_variables(state)), int(state.step)


def exported_stage(config: ConfigDict, model: epath.PathLike) -> tuple[Stage, PyTree]:
    """Returns the stage of a model directory and its variables; only the section `data` of the config is used."""
    index = read_index(model)
    part = load_part(model, stage_row(config.stage).exported_part)
    resolved = part.config.copy_and_resolve_references()
    resolved.data.update(config.data)
    for upstream in resolved.upstream:
        resolved.upstream[upstream] = str(model)  # an export contains its upstream parts
    check_bases(resolved, index_basis(index), of=f"the model {model}")
    stage = make_stage(resolved)
    check_variables(stage.name, part.variables, jax.eval_shape(stage.init, jax.random.key(0)))
    return stage, part.variables


def write_evaluation(directory: epath.Path, name: str, evaluation: Evaluation) -> None:
    """Writes an evaluation as `NAME.html` (self-contained), `NAME.json` and `NAME_*.png`, if it has pictures.

    Args:
        directory: output directory, created if missing.
        name: name of the files without extension.
        evaluation: the evaluation.
    """
    panels = evaluation.draw()
    if not panels:
        return
    directory.mkdir(parents=True, exist_ok=True)
    page = render_page(name, f"written by eval.py into {directory.name}/", evaluation.metrics, panels)
    numbers = json.dumps({"metrics": evaluation.metrics, **evaluation.details}, indent=2, allow_nan=False)
    files = {f"{name}_{panel.name}.png": panel.picture for panel in panels}
    files |= {f"{name}.json": f"{numbers}\n".encode(), f"{name}.html": page.encode()}
    for file, contents in files.items():
        with replace_when_whole(directory / file) as temporary:
            temporary.write_bytes(contents)
