"""Benchmark: do the train steps of all stages fit on a pod of TPUs or GPUs, and how well will they scale?

    pip install ".[aot]"
    python -m benchmarks.pod --topology=v5e:16x16 --global_batch=4096 --stages=fer,motion_prior
    python -m benchmarks.pod --topology=v5e:16x16 --config=configs/dee.py:variant=base --global_batch=4096

No accelerator is needed. libtpu compiles for a description of TPUs, and the CUDA compiler of `pip install ".[cuda]"`
for a description of GPUs, as in `--topology=h100:8x32` (`benchmarks/topology.py`). `--config` is optional: the stage
that it belongs to is compiled with this config, the others with the defaults of `--variant`. Weights of earlier stages
are represented by their shapes. The head is the procedural one, and a tiny corpus is built for the statistics that
stages read at the start.

For each stage the report gives, per device, the bytes of arguments and temporaries in relation to the memory of the
chip, FLOP and memory traffic of the compiled program, and its collectives. The predicted time of a step is the roofline
(Williams et al., CACM 2009), `max(flops / peak, bytes / memory bandwidth)`, plus the time of all collectives one after
the other, without overlap (`benchmarks/collectives.py`; rates of the chips: `deeptalk_jax/training/chips.py`). The
predicted efficiency is the step time on 8 chips divided by that on this topology, with equal rows per chip.

Limits of the prediction: FLOP, bytes and collectives in the body of a loop count once. Matrix products are assumed to
run at the rate of bfloat16. TPUs round their factors to bfloat16 by default; GPUs round them to TF32, at half that
rate. By default the compiler runs with less effort than in training (`--effort`): three layers of the speech encoder
compile in 8 s instead of 73 s, with the same FLOP, 6 % fewer bytes and 16 % more temporaries.

The last line is a JSON object with `topology`, `num_slices`, `global_batch`, and `stages`, which maps the name of each
stage to

* `fits`: whether the step fits into the memory of a chip. All other numbers are absent if the compiler finds no room.
* `bytes_per_device`, `flops_per_device`, `collective_bytes`: costs of a step on one device.
* `step_s`: predicted time of a step in seconds.
* `predicted_efficiency`: predicted efficiency relative to 8 chips.
* `largest_rows_per_device`: largest number of rows per device that fits; only with `--largest_batch`.
"""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags

# Set before JAX is imported, because this process compiles for TPUs without having any.
os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}

import jax
import numpy as np
from ml_collections import ConfigDict, config_flags

from benchmarks.collectives import find_collectives, total_seconds
from benchmarks.topology import Topology, eight_chips, find_topology
from benchmarks.traffic import memory_traffic
from configs.common import VARIANTS
from data_pipeline.prepare import prepare
from deeptalk_jax.assembly.model_dir import Part
from deeptalk_jax.assembly.stage_table import STAGES, stage_row
from deeptalk_jax.cli import run_tool
from deeptalk_jax.errors import UserError
from deeptalk_jax.stages.base import Stage
from deeptalk_jax.training.chips import Chip
from deeptalk_jax.training.mesh import make_mesh
from deeptalk_jax.training.runner import jit_step
from deeptalk_jax.training.step import Step, stage_step

PyTree = Any

_COLLECTIVES_SHOWN = 8
_MOST_ROWS = 4096  # rows per device at which the search for the largest batch ends

_TOPOLOGY = flags.DEFINE_string(
    "topology",
    "v5e:16x16",
    "Generation and shape, such as v4:4x4x8, v6e:16x16 or h100:8x32 (GPUs per host x number of hosts).",
)
_NUM_SLICES = flags.DEFINE_integer(
    "num_slices", 1, "Number of TPU slices of that shape, joined by the network."
)
_GLOBAL_BATCH = flags.DEFINE_integer("global_batch", 4096, "Rows of a batch, over all devices.")
_STAGES = flags.DEFINE_list("stages", list(STAGES), "Stages to compile.")
_EFFORT = flags.DEFINE_float(
    "effort",
    -1.0,
    "Optimisation effort of the compiler, from -1 (fastest compilation) to 1; 0 is the effort in training.",
    lower_bound=-1.0,
    upper_bound=1.0,
)
_LARGEST_BATCH = flags.DEFINE_bool(
    "largest_batch", False, "Also search for the largest number of rows that fits on a device."
)
_VARIANT = flags.DEFINE_enum(
    "variant", "base", VARIANTS, "Variant of the stages that --config does not configure."
)
_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file of one of the stages; optional.")


class StepCost(NamedTuple):
    """Costs of a compiled step on one device.

    Attributes:
        argument_bytes: Memory of the state, the constants and the batch; the new state reuses that of the old one.
        temporary_bytes: Memory needed in addition while the step runs.
        flops: Floating-point operations.
        memory_bytes: Bytes read from and written to memory.
        collectives: Collectives of the program, as `find_collectives` returns them.
    """

    argument_bytes: int
    temporary_bytes: int
    flops: float
    memory_bytes: float
    collectives: list

    @property
    def total_bytes(self) -> int:
        """Bytes that must fit into the memory of the device."""
        return self.argument_bytes + self.temporary_bytes


def stage_configs(data_dir: str, global_batch: int) -> dict[str, ConfigDict]:
    """Returns the config of every stage, with its data in `data_dir` and a global batch of `global_batch` rows."""
    configs = {}
    for name, row in STAGES.items():
        given = _CONFIG.value if _CONFIG.value is not None and _CONFIG.value.stage == name else None
        config = given or row.config_module.get_config(f"variant={_VARIANT.value}")
        config = config.copy_and_resolve_references().unlock()
        config.data.data_dir, config.data.batch_size = data_dir, global_batch
        configs[name] = config.lock()
    return configs


def abstract_stages(configs: dict[str, ConfigDict]) -> dict[str, Stage]:
    """Creates every stage, with shapes in place of the weights of earlier stages."""
    parts: dict[str, Part] = {}
    stages = {}
    for name, config in configs.items():
        row = stage_row(name)
        stage = stages[name] = row.load_class()(config, dict(parts))
        shapes = jax.eval_shape(stage.init, jax.random.key(0))
        parts.setdefault(row.exported_part, Part(config, shapes))
    return stages


def compile_step(stage: Stage, devices: list[jax.Device], effort: float = 0.0) -> jax.stages.Compiled:
    """Compiles the train step of a stage for all devices, with a compiler effort from -1 to 1."""
    config = stage.config
    mesh = make_mesh(fsdp_devices=config.fsdp_devices, devices=devices)
    update, state, constants, batch = _step_and_shapes(stage)
    lowered = jit_step(update, mesh, state, constants).lower(state, constants, batch)
    options = {"exec_time_optimization_effort": effort}
    if devices[0].platform == "gpu":
        options["xla_gpu_enable_triton_gemm"] = False  # Triton tunes its tiles on a real device
    return lowered.compile(options)


def _step_and_shapes(stage: Stage) -> tuple[Step, PyTree, PyTree, PyTree]:
    """Returns the train step of a stage and the shapes of its arguments."""
    constants = _shapes(stage.constants())
    _, initial_state, update = stage_step(stage, stage.config, constants)
    state = jax.eval_shape(initial_state, jax.random.key(0))
    batch = stage.batch_shapes()
    batch["audio"] = jax.ShapeDtypeStruct(batch["audio"].shape, np.int16)  # the loader gives int16
    return update, state, constants, batch


def step_cost(stage: Stage, compiled: jax.stages.Compiled, num_devices: int) -> StepCost:
    """Returns the costs of a compiled step on one device, from the analyses of the compiler.

    The compiler for GPUs counts neither FLOP nor bytes ahead of time. FLOP are then counted in the program before
    compilation, and bytes in the compiled program (`benchmarks/traffic.py`).
    """
    memory, cost, hlo = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    if cost is None:
        update, *shapes = _step_and_shapes(stage)
        whole = jax.jit(update).lower(*shapes).cost_analysis()
        cost = {"flops": whole["flops"] / num_devices, "bytes accessed": memory_traffic(hlo)}
    return StepCost(
        memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        memory.temp_size_in_bytes,
        cost["flops"],
        cost["bytes accessed"],
        find_collectives(hlo, num_devices),
    )


def step_seconds(cost: StepCost, chip: Chip, num_groups: int) -> float:
    """Predicts the time of a step in seconds: the roofline of computation and memory, plus the collectives."""
    computing = max(cost.flops / chip.flops_per_s, cost.memory_bytes / chip.memory_bytes_per_s)
    return computing + total_seconds(cost.collectives, chip, num_groups)


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _with_rows(stage: Stage, rows: int) -> Stage:
    config = stage.config.copy_and_resolve_references().unlock()
    config.data.batch_size = rows
    return type(stage)(config.lock(), stage.upstream)


def _report(name: str, cost: StepCost, chip: Chip) -> None:
    print(
        f"{name}: {cost.argument_bytes / 1e9:.3f} GB arguments + {cost.temporary_bytes / 1e9:.3f} GB temporaries = "
        f"{cost.total_bytes / chip.memory_bytes:.1%} of {chip.memory_bytes / 1e9:.0f} GB; "
        f"{cost.flops / 1e9:.1f} GFLOP, {cost.memory_bytes / 1e9:.2f} GB read and written"
    )
    sizes = Counter()
    for kind, num_bytes, group_size in cost.collectives:
        sizes[kind, group_size, num_bytes] += 1
    largest = sorted(sizes.items(), key=lambda item: -item[0][2] * item[1])[:_COLLECTIVES_SHOWN]
    for (kind, group_size, num_bytes), count in largest:
        print(f"    {count:3d} x {kind} over {group_size}: {num_bytes / 1e6:.3f} MB")


def _cost(stage: Stage, devices: list[jax.Device]) -> StepCost | None:
    """Returns the costs of the step of a stage, or None if it does not fit into the memory of a device."""
    try:
        return step_cost(stage, compile_step(stage, devices, _EFFORT.value), len(devices))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"{stage.name}: {stage.config.data.batch_size} rows do not fit ({str(error).splitlines()[0]})")
        return None


def largest_rows(rows: int, total_bytes: Callable[[int], int | None], memory_bytes: float) -> int:
    """Searches for the largest number of rows that fits, by doubling or halving `rows`; 0 if none fits.

    Args:
        rows: Number of rows to start from.
        total_bytes: Maps a number of rows to the bytes they need, or to None if the compiler finds no room.
        memory_bytes: Memory of a device in bytes.
    """

    def fits(rows):
        total = total_bytes(rows)
        return total is not None and total <= memory_bytes

    while rows and not fits(rows):
        rows //= 2
    while rows and rows < _MOST_ROWS and fits(2 * rows):
        rows *= 2
    return rows


def _measure(stage: Stage, topology: Topology, eight: Topology) -> dict[str, Any]:
    """Returns the numbers of one stage for the JSON line, and prints the details."""
    name, rows = stage.name, stage.config.data.batch_size
    devices, chip, num_groups = topology
    if rows % len(devices):
        raise UserError(f"--global_batch={rows}: expected a multiple of the {len(devices)} devices")
    found: dict[str, Any] = {"fits": False}
    cost = _cost(stage, devices)
    small = cost and _cost(_with_rows(stage, rows // len(devices) * len(eight.devices)), eight.devices)
    if small:
        _report(name, cost, chip)
        few = step_seconds(small, chip, 1)
        many = step_seconds(cost, chip, num_groups)
        print(f"    {1e3 * few:.2f} ms on 8 chips, {1e3 * many:.2f} ms on {len(devices)}: {few / many:.1%}")
        found = {
            "fits": cost.total_bytes <= chip.memory_bytes,
            "bytes_per_device": cost.total_bytes,
            "flops_per_device": cost.flops,
            "collective_bytes": sum(collective.num_bytes for collective in cost.collectives),
            "step_s": many,
            "predicted_efficiency": few / many,
        }
    if _LARGEST_BATCH.value:

        def total_bytes(rows_each):
            whole = rows_each * len(devices)
            of_rows = cost if whole == rows else _cost(_with_rows(stage, whole), devices)
            return of_rows and of_rows.total_bytes

        found["largest_rows_per_device"] = largest_rows(rows // len(devices), total_bytes, chip.memory_bytes)
        print(f"    at most {found['largest_rows_per_device']} rows per device fit")
    return found


def _pod() -> None:
    unknown = [name for name in _STAGES.value if name not in STAGES]
    if unknown:
        raise UserError(f"--stages={unknown[0]}: expected some of {', '.join(STAGES)}")
    # JAX cannot load a cached program that was compiled for devices that are absent.
    jax.config.update("jax_enable_compilation_cache", False)
    topology, eight = find_topology(_TOPOLOGY.value, _NUM_SLICES.value), eight_chips(_TOPOLOGY.value)
    devices = topology.devices
    print(f"{len(devices)} x {devices[0].device_kind}, {_GLOBAL_BATCH.value // len(devices)} rows per device")
    with tempfile.TemporaryDirectory() as data_dir:
        prepare("synthetic_talk", data_dir, num_clips=64)
        stages = abstract_stages(stage_configs(data_dir, _GLOBAL_BATCH.value))
        found = {name: _measure(stages[name], topology, eight) for name in _STAGES.value}
    line = {"topology": _TOPOLOGY.value, "num_slices": _NUM_SLICES.value, "global_batch": _GLOBAL_BATCH.value}
    print(json.dumps(line | {"stages": found}))


if __name__ == "__main__":
    run_tool(_pod)
