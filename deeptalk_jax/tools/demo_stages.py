"""Training and evaluation of all stages in the demo."""

import json
from pathlib import Path

from ml_collections import ConfigDict

from deeptalk_jax.assembly.stage_table import STAGES
from deeptalk_jax.stages.run import evaluate, train


def stage_configs(out: Path, data_dir: Path) -> list[ConfigDict]:
    """Returns the mini configs of all stages in order; each reads the models of earlier stages below `out`."""
    configs = []
    for row in STAGES.values():
        config = row.config_module.get_config("variant=mini")
        with config.unlocked():
            config.data.data_dir = str(data_dir)
            for name in config.upstream:
                config.upstream[name] = str(out / name / "model")
        configs.append(config)
    return configs


def train_and_evaluate(config: ConfigDict, workdir: Path) -> dict[str, float]:
    """Trains a stage unless it is finished, and returns its metrics on the test split.

    Metrics on disk are returned if they are newer than the model.
    """
    model, metrics = workdir / "model" / "model.json", workdir / "metrics.json"
    train(config, workdir)
    if metrics.exists() and metrics.stat().st_mtime > model.stat().st_mtime:
        return json.loads(metrics.read_text())
    return evaluate(config, workdir, "test")
