"""Benchmark: how fast is the differentiable mouth renderer, and how much memory does it take?

    python -m benchmarks.mouth_renderer --batch=16 --frames=32

Training of stage 2 renders the mouth for the lip-reading loss (docs/method.md, section 4.2). Times are medians of warm
runs; forward pass and gradient alternate in one process.

The last line is a JSON object with

* `forward_frames_per_s`, `gradient_frames_per_s`: frames per second of the forward pass, and of forward and backward
  pass together.
* `program_bytes_forward`, `program_bytes_gradient`: memory of the compiled program without its arguments.
* `peak_bytes`: peak memory of the process.
* `faces`: number of triangles that are drawn.
* `size`, `batch`, `frames`, `platform`: settings.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks.timing import median_s, peak_bytes
from deeptalk_jax.cli import run_tool
from deeptalk_jax.head.load import load_head
from deeptalk_jax.rendering.mouth import mouth_renderer
from deeptalk_jax.types import EXPRESSION_DIM, MOTION_DIM

_BATCH = flags.DEFINE_integer("batch", 16, "Windows per batch.")
_FRAMES = flags.DEFINE_integer("frames", 32, "Motion frames per window.")
_SIZE = flags.DEFINE_integer("size", 88, "Width and height of a picture in pixels.")
_RUNS = flags.DEFINE_integer("runs", 3, "Number of timed runs, after one that compiles.")
_HEAD = flags.DEFINE_string(
    "head", "procedural", "Head model to draw: `procedural` or the file of a FLAME model."
)


def _motion() -> jnp.ndarray:
    """Returns random motion of opening mouths, `[b, t, 53]`; it is the same in every run."""
    rng = np.random.default_rng(0)
    motion = 0.3 * rng.uniform(size=(_BATCH.value, _FRAMES.value, MOTION_DIM))
    motion[..., EXPRESSION_DIM] = rng.uniform(0.0, 0.3, motion.shape[:2])
    motion[..., EXPRESSION_DIM + 1 :] = 0.0
    return jnp.asarray(motion, jnp.float32)


def _benchmark() -> None:
    renderer = mouth_renderer(load_head(_HEAD.value), _SIZE.value)
    motion = _motion()

    def loss(motion):
        return jnp.mean(jnp.square(renderer.from_motion(motion)))

    forward = jax.jit(renderer.from_motion).lower(motion).compile()
    backward = jax.jit(jax.value_and_grad(loss)).lower(motion).compile()
    forward_s, backward_s = median_s(
        lambda: jax.block_until_ready(forward(motion)),
        lambda: jax.block_until_ready(backward(motion)),
        runs=_RUNS.value,
    )
    num_frames = _BATCH.value * _FRAMES.value
    result = {
        "forward_frames_per_s": num_frames / forward_s,
        "gradient_frames_per_s": num_frames / backward_s,
        "program_bytes_forward": forward.memory_analysis().temp_size_in_bytes,
        "program_bytes_gradient": backward.memory_analysis().temp_size_in_bytes,
        "peak_bytes": peak_bytes(),
        "faces": len(renderer.faces),
        "size": _SIZE.value,
        "batch": _BATCH.value,
        "frames": _FRAMES.value,
        "platform": jax.default_backend(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    run_tool(_benchmark)
