"""Training, evaluation, interruption and failure of the real stages, tiny, on one device."""

import json
import os
import signal

import jax
import numpy as np
import pytest

from deeptalk_jax.assembly.model_dir import load_part
from deeptalk_jax.assembly.stage_table import STAGES
from deeptalk_jax.errors import Interrupted, UserError
from deeptalk_jax.stages import run
from deeptalk_jax.stages.base import make_stage
from deeptalk_jax.training.checkpoints import Checkpoints
from deeptalk_jax.training.failures import NonFiniteError
from deeptalk_jax.training.loop import fit
from deeptalk_jax.training.state import step_key
from deeptalk_jax.training.step import decode_audio
from deeptalk_jax.training.trainer import Trainer

STAGE_NAMES = tuple(STAGES)
# Stage 2 has the evaluation of stage 1, and its step takes minutes to compile.
_QUICK_STAGES = [
    pytest.param(
        stage,
        marks=pytest.mark.skipif(
            stage == "deeptalk_stage2" and os.environ.get("DEEPTALK_FULL_TESTS") != "1",
            reason="takes two minutes; DEEPTALK_FULL_TESTS=1 runs it",
        ),
    )
    for stage in STAGE_NAMES
]


def leaves(tree):
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_a_stage_learns_logs_and_exports(trained, stage):
    rows = [json.loads(line) for line in (trained / stage / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:  # unknown on a CPU
        assert row.pop("train/mfu") is row.pop("train/device_memory_bytes") is None
    assert all(np.isfinite(value) for row in rows for value in row.values())
    assert {"train/loss", "train/gradient_norm", "train/data_wait", "train/skipped_steps"} <= rows[0].keys()
    assert rows[0]["train/examples_per_s"] == pytest.approx(8 * rows[0]["train/steps_per_s"])
    assert list((trained / stage).glob("events.out.tfevents.*"))
    assert json.loads((trained / stage / "config.json").read_text())["stage"] == stage
    part = load_part(trained / stage / "model", STAGES[stage].exported_part)
    started = leaves(make_stage(part.config).init(jax.random.key(part.config.seed)))
    moved = [
        name for name, value in leaves(part.variables).items() if not np.array_equal(value, started[name])
    ]
    assert len(moved) > 0.6 * len(started), "few weights have moved"
    if stage == "dee":
        fixed = {name for name in started if "['conv_" in name or "['mel_map']" in name}
        assert len(fixed) == 6
        assert not fixed & set(moved), "frozen weights have moved"


# Stages with state besides the weights: batch statistics, codebooks, the temperature of the Gumbel-softmax.
@pytest.mark.parametrize("stage", ["fer", "motion_prior", "deeptalk"])
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    trained, tiny_config, tmp_path, stage, monkeypatch
):
    config = tiny_config(stage, trained)
    taken = Trainer.next_step

    def stop_after_two(self):
        metrics = taken(self)
        if self.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return metrics

    monkeypatch.setattr(Trainer, "next_step", stop_after_two)
    with pytest.raises(Interrupted, match="SIGTERM: saved step 2"):
        fit(make_stage(config), config, tmp_path)
    monkeypatch.setattr(Trainer, "next_step", taken)
    resumed = leaves(fit(make_stage(config), config, tmp_path))
    whole = leaves(load_part(trained / stage / "model", STAGES[stage].exported_part).variables)
    assert len(resumed) == len(whole)
    for (name, value), expected in zip(
        sorted(resumed.items()), (v for _, v in sorted(whole.items())), strict=True
    ):
        np.testing.assert_array_equal(value, expected, err_msg=name)


def test_a_signal_ends_an_evaluation_and_saves_the_step(tiny_config, tmp_path, monkeypatch):
    config = tiny_config("fer", eval_every_steps=1, checkpoint_every_steps=4)
    stage = make_stage(config)

    def evaluate(variables, split):
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("went on")

    monkeypatch.setattr(stage, "evaluate", evaluate)
    with pytest.raises(Interrupted, match=r"SIGTERM: saved step 1 in .*checkpoints; run again to resume"):
        fit(stage, config, tmp_path)
    assert (tmp_path / "checkpoints" / "1").is_dir()


@pytest.mark.parametrize("stage", _QUICK_STAGES)
def test_evaluation_returns_finite_numbers_and_writes_them(trained, tiny_config, stage):
    config = tiny_config(stage, trained)
    first = run.evaluate(config, trained / stage, "test")
    assert json.loads((trained / stage / "metrics.json").read_text()) == first
    assert first.pop("stage") == stage
    assert first.pop("split") == "test"
    head = first.pop("head", "")  # only where metrics depend on the masks
    assert head.startswith("procedural, basis embedded 1; vertices: lips ") == (stage not in ("fer", "dee"))
    assert all(np.isfinite(value) for value in first.values())
    page = trained / stage / "eval" / f"{stage}_test.html"
    assert page.exists() == (stage != "lip_reader")


def test_a_finished_run_is_unchanged_and_another_config_is_refused(trained, tiny_config):
    index = trained / "fer" / "model" / "model.json"
    before = index.stat().st_mtime_ns
    run.train(tiny_config("fer"), trained / "fer")
    assert index.stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"begun with another config \(differs in: optimiser.learning_rate\)"):
        run.train(tiny_config("fer", **{"optimiser.learning_rate": 0.5}), trained / "fer")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_devices": 99}, "num_devices=99: expected at most 8"),
        ({"optimiser.schedule": "linear"}, "optimiser.schedule='linear': expected one of"),
        ({"model.dtype": "float16"}, r"model.dtype='float16': expected one of float32, bfloat16"),
        ({"model.feature_path": "none"}, "model.feature_path='none': expected one of published, normalised"),
        ({"model.feature_layer": 7}, "model.feature_layer=7: expected the index of one of the 7 layers"),
        ({"num_steps": 0}, "num_steps=0: expected 1 or more"),
        ({"log_every_steps": 0}, "log_every_steps=0: expected 1 or more"),
        ({"checkpoint_every_steps": 0}, "checkpoint_every_steps=0: expected 1 or more"),
        ({"data.batch_size": 0}, "data.batch_size=0: expected 1 or more"),
        ({"seed": -1}, r"seed=-1: expected 0 to 2\^32 - 1"),
        ({"data.unpack_dir": "None"}, "data.unpack_dir=None: expected a directory"),
        (
            {"optimiser.rate_factors": ("dense_0/*", 0.1)},
            "optimiser.rate_factors=.*: expected pairs of a pattern and",
        ),
    ],
)
def test_a_config_value_that_cannot_be_used_leaves_no_work_directory(tiny_config, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        run.train(tiny_config("fer", **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Poisoned:
    """Batches of a stage; the third one contains a clip with motion that is NaN."""

    def __init__(self, batches):
        self._batches, self._count = batches, 0

    def __next__(self):
        batch = dict(next(self._batches))
        self._count += 1
        if self._count == 3:
            batch["motion"] = batch["motion"].copy()
            batch["motion"][5] = np.nan
        return batch

    def get_state(self):
        return [self._count, self._batches.get_state()]

    def set_state(self, state):
        self._count, position = state
        self._batches.set_state(position)

    def start_prefetch(self):
        pass


@pytest.fixture
def poisoned(tiny_config, monkeypatch):
    """Returns `overrides -> (stage, config)` for a FER with a third batch that contains NaN."""

    def make(**changes):
        config = tiny_config("fer", **changes)
        stage = make_stage(config)
        monkeypatch.setattr(
            stage, "train_batches", lambda **kw: Poisoned(type(stage).train_batches(stage, **kw))
        )
        return stage, config

    return make


def test_a_non_finite_loss_stops_the_run_and_names_step_term_and_clip(poisoned, tmp_path):
    stage, config = poisoned(log_every_steps=4)  # the check comes one step after the fault
    batches = stage.train_batches(num_processes=1, process_index=0)
    names = [stage.example_names(next(batches)) for _ in range(3)]
    with pytest.raises(NonFiniteError, match=r"fer: not finite at step 2: .*cross_entropy") as error:
        fit(stage, config, tmp_path)
    assert f"not finite in: {names[2][5]}; the last good" in str(error.value)
    assert (tmp_path / "checkpoints" / "2").is_dir()  # the last good state is kept
    assert not (tmp_path / "checkpoints" / "4").exists()


def test_a_non_finite_step_is_skipped_by_config(poisoned, tmp_path):
    """A resumed run may change `on_nonfinite`: the first call stops at the bad step, the second one skips it."""
    stage, config = poisoned(num_steps=3, log_every_steps=3)
    with pytest.raises(NonFiniteError):
        fit(stage, config, tmp_path)
    with config.unlocked():
        config.on_nonfinite = "skip"
    before = Trainer(stage, config)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        before.state = checkpoints.restore(before.state, before.iterator)
    after = leaves(fit(stage, config, tmp_path))
    assert before.step == 2
    for name, value in leaves(before.variables()).items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)
    (row,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert (row["step"], row["train/skipped_steps"], row["train/loss"]) == (3, 1, None)


def test_an_unknown_on_nonfinite_is_rejected(tiny_config, tmp_path):
    with pytest.raises(UserError, match="on_nonfinite='ignore': expected one of stop, skip"):
        fit(None, tiny_config("fer", on_nonfinite="ignore"), tmp_path)


def test_a_missing_upstream_directory_or_part_is_named(trained, tiny_config):
    config = tiny_config("dee", trained).copy_and_resolve_references().unlock()
    config.upstream.fer = ""
    with pytest.raises(UserError, match=r"stage 'dee' builds on 'fer': .* --config.upstream.fer=DIR"):
        make_stage(config)
    config.upstream.fer = str(trained / "motion_prior" / "model")
    with pytest.raises(UserError, match="holds no part 'fer', only: motion_prior"):
        make_stage(config)


def test_losses_ignore_padding(trained, tiny_config):
    """Audio and motion behind the end of a short clip change no loss term."""
    for name in ("fer", "dee"):
        stage = make_stage(tiny_config(name, trained))
        batch = dict(decode_audio(next(stage.train_batches(num_processes=1, process_index=0))))
        batch["num_frames"] = np.full_like(batch["num_frames"], 3)
        batch["num_samples"] = 640 * batch["num_frames"]
        part = load_part(trained / name / "model", name)
        params = part.variables["params"]
        state = {key: tree for key, tree in part.variables.items() if key != "params"}

        @jax.jit
        def loss(params, state, frozen, batch, stage=stage):
            return stage.loss_fn(params, state, frozen, batch, np.int32(0), step_key(0, 0))[1][1]

        noisy = {**batch, "motion": batch["motion"].copy(), "audio": np.array(batch["audio"])}
        noisy["audio"][:, 3 * 640 :] = 0.5
        if name == "dee":  # the batch statistics of FER include padding
            noisy["motion"][:, 3:] = 4.0
        frozen = stage.constants()
        clean, other = (loss(params, state, frozen, data) for data in (batch, noisy))
        for term, value in clean.items():
            np.testing.assert_allclose(other[term], value, rtol=1e-4, atol=1e-5, err_msg=term)
