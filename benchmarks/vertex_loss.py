"""Benchmark: how much faster is the vertex loss by a Gram factor than by explicit vertices, and is it exact?

    python -m benchmarks.vertex_loss

The Gram factor is described in docs/method.md, section 3.1. The loss is timed as value and gradient for 256 windows of
32 frames on a head of FLAME's size. Explicit vertices are computed a few windows at a time (`--chunk`), so that they
fit into caches and memory. The training step of the base motion prior is timed as `train.py` runs it. If PyTorch is
installed, it is compared with the same model and explicit vertices in PyTorch (`benchmarks/torch_motion_prior.py`,
which needs 10 GB). The motion is random. Times are medians of warm runs; all cases alternate in one process.

The last line is a JSON object with

* `loss_speedup`: time of the explicit loss divided by time of the Gram loss.
* `loss_speedup_full_rank`: the same for the largest Gram factor that any head can have.
* `step_speedup_vs_torch`: time of the PyTorch step divided by that of the JAX step; null without PyTorch.
* `max_relative_error_float32`: error of value and gradient of the Gram loss in float32, relative to explicit vertices
  in float64.
* `seconds`: time of every case.
* `gram_bytes`, `vertices_bytes`: temporary memory of the compiled losses.
* `peak_bytes`: peak memory of the process.
* `rank`, `batch`, `num_frames`, `num_vertices`: sizes.
"""

import functools
import importlib.util
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import einops
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from benchmarks.timing import median_s, peak_bytes
from configs import motion_prior
from deeptalk_jax.cli import run_tool
from deeptalk_jax.head.gram import FEATURE_DIM, distance_factor, squared_distance
from deeptalk_jax.head.lbs import head_vertices
from deeptalk_jax.head.load import load_head
from deeptalk_jax.head.model import HeadModel
from deeptalk_jax.stages.motion_prior import MotionPriorStage, savitzky_golay
from deeptalk_jax.training.trainer import Trainer
from deeptalk_jax.types import EXPRESSION_DIM, MOTION_DIM

_BATCH = flags.DEFINE_integer("batch", 256, "Number of windows, of 32 frames each.")
_CHUNK = flags.DEFINE_integer("chunk", 4, "Windows per chunk of the explicit loss; must divide the batch.")
_RUNS = flags.DEFINE_integer("runs", 5, "Number of timed runs, of which the median is reported.")
_HEAD = flags.DEFINE_string(
    "head", "synthetic", "Head model for `load_head`, or `synthetic` for random arrays of FLAME's size."
)
_STEP = flags.DEFINE_bool("step", True, "Whether to time the training step as well.")

_NUM_FRAMES = 32
_CHECKED_WINDOWS = 2  # windows in the comparison with float64
_GOLDENS = Path(__file__).resolve().parents[1] / "tests" / "goldens"


def _head_spec(directory: str) -> str:
    """Returns the argument for `load_head`; the synthetic head is first written to a file in `directory`."""
    if _HEAD.value != "synthetic":
        return _HEAD.value
    spec = importlib.util.spec_from_file_location("pseudo_weights", _GOLDENS / "pseudo_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = Path(directory) / "synthetic.npz"
    np.savez(path, **module.synthetic_flame())
    return str(path)


def _motions() -> tuple[np.ndarray, np.ndarray]:
    """Returns random motion and target, `[b, t, 53]` each, whose vertices differ by millimetres."""
    generator = np.random.default_rng(0)
    target = generator.standard_normal((_BATCH.value, _NUM_FRAMES, MOTION_DIM))
    error = generator.standard_normal(target.shape)
    target[..., -3:] *= 0.1
    error[..., -3:] *= 0.1
    return (target + 0.1 * error).astype(np.float32), target.astype(np.float32)


def _gram_loss(factor, motion, target):
    return jax.value_and_grad(lambda m: jnp.mean(squared_distance(factor, m, target)))(motion)


def _vertices(head, motion):
    """Computes vertices as FLAME does, `[..., 53]` to `[..., v, 3]`: all five joints are posed and blended."""
    return head_vertices(head, motion[..., :EXPRESSION_DIM], motion[..., EXPRESSION_DIM:])


def _vertex_loss(head, motion, target, *, chunk):
    """Computes the mean squared error of vertex coordinates and its gradient, `chunk` windows at a time."""
    num_chunks = motion.shape[0] // chunk

    def one(pair):
        def loss(motion):
            error = _vertices(head, motion) - _vertices(head, pair[1])
            return jnp.mean(jnp.square(error)) / num_chunks

        return jax.value_and_grad(loss)(pair[0])

    pairs = [einops.rearrange(x, "(n b) t d -> n b t d", b=chunk) for x in (motion, target)]
    values, gradients = jax.lax.map(one, pairs)
    return jnp.sum(values), einops.rearrange(gradients, "n b t d -> (n b) t d")


def _program(function: Callable, *arguments: Any) -> tuple[Callable[[], Any], int]:
    """Compiles a function; returns a call of it with the arguments, and the bytes of its temporaries."""
    arguments = jax.device_put(arguments)
    compiled = jax.jit(function).lower(*arguments).compile()
    return (
        lambda: jax.block_until_ready(compiled(*arguments)),
        compiled.memory_analysis().temp_size_in_bytes,
    )


def _error_float32(head: HeadModel, motion: np.ndarray, target: np.ndarray) -> float:
    """Returns the largest relative error of the float32 Gram loss and its gradient on a few windows."""
    motion, target = motion[:_CHECKED_WINDOWS], target[:_CHECKED_WINDOWS]
    narrow = jax.device_get(jax.jit(_gram_loss)(distance_factor(head), motion, target))
    with jax.enable_x64(True):
        head, motion, target = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x, np.float64)), (head, motion, target)
        )
        exact = jax.device_get(jax.jit(functools.partial(_vertex_loss, chunk=1))(head, motion, target))
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(narrow, exact, strict=True))


class _SameBatch(MotionPriorStage):
    """Stage of the motion prior that trains on the same batch in every step."""

    def __init__(self, config: ConfigDict, motion: np.ndarray):
        super().__init__(config)
        shapes = self.batch_shapes(len(motion))
        self._batch = {name: np.zeros(shape.shape, shape.dtype) for name, shape in shapes.items()}
        self._batch |= {"motion": motion, "num_frames": np.full(len(motion), motion.shape[1], np.int32)}

    def train_batches(self, **_: Any) -> Iterator[dict[str, np.ndarray]]:
        """Returns an endless iterator of the same batch."""
        return itertools.repeat(self._batch)


def _train_step(head_spec: str, motion: np.ndarray) -> Callable[[], float]:
    """Returns a function that runs one step of the training loop, from a batch on the host to its loss."""
    config = motion_prior.get_config("variant=base").unlock()
    config.head, config.data.batch_size, config.num_devices = head_spec, len(motion), 1
    trainer = Trainer(_SameBatch(config, motion), config)
    return lambda: float(trainer.next_step()["loss"])


def _benchmark() -> None:
    with tempfile.TemporaryDirectory() as directory:
        spec = _head_spec(directory)
        head = load_head(spec)
        motion, target = _motions()
        factor = distance_factor(head)
        full = np.random.default_rng(1).standard_normal((FEATURE_DIM, FEATURE_DIM)).astype(np.float32)
        cases = {}
        cases["gram"], gram_bytes = _program(_gram_loss, factor, motion, target)
        cases["gram_full_rank"], _ = _program(_gram_loss, full, motion, target)
        explicit = functools.partial(_vertex_loss, chunk=_CHUNK.value)
        cases["vertices"], vertices_bytes = _program(explicit, head, motion, target)
        if _STEP.value:
            cases["step"] = _train_step(spec, motion)
            if importlib.util.find_spec("torch"):
                from benchmarks.torch_motion_prior import torch_step

                smooth = np.asarray(savitzky_golay(motion))
                cases["torch_step"] = torch_step(head, motion, smooth, learning_rate=5e-4)
        seconds = dict(zip(cases, median_s(*cases.values(), runs=_RUNS.value), strict=True))
    torch_s = seconds.get("torch_step")
    result = {
        "loss_speedup": seconds["vertices"] / seconds["gram"],
        "loss_speedup_full_rank": seconds["vertices"] / seconds["gram_full_rank"],
        "step_speedup_vs_torch": None if torch_s is None else torch_s / seconds["step"],
        "max_relative_error_float32": _error_float32(head, motion, target),
        "seconds": seconds,
        "gram_bytes": gram_bytes,
        "vertices_bytes": vertices_bytes,
        "peak_bytes": peak_bytes(),
        "rank": len(factor),
        "batch": _BATCH.value,
        "num_frames": _NUM_FRAMES,
        "num_vertices": head.num_vertices,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    run_tool(_benchmark)
