"""Compiles the train step of every stage for TPUs or GPUs that are not there, and predicts how it scales.

    pip install ".[aot]"
    python -m benchmarks.pod --topology=v5e:16x16 --config=configs/dee.py:variant=base --global_batch=4096

No TPU is needed: libtpu compiles for a description of the chips; for GPUs (`--topology=h100:8x32`) the CUDA compiler of
`pip install ".[cuda]"` does (`benchmarks/topology.py`). The stage of `--config` is compiled as the config
says, the others in the variant of `--variant`; `--stages=dee,motion_prior` takes only some. Weights of earlier stages
are shapes; the head is the embedded one, and a tiny corpus is built for the statistics that stages read first.

Of every stage, per device: arguments, temporaries and the total against the chip's memory, FLOP and bytes of the
compiled program, and its collectives. The predicted step is the roofline (Williams et al., CACM 2009),
`max(flops / peak, bytes / memory bandwidth)`, plus all collectives one after the other, none hidden behind computing
(`benchmarks/collectives.py`; figures of the chips in `deeptalk_jax/training/chips.py`). The predicted efficiency is the
step of 8 chips over that of this topology, with as many rows on each chip. FLOP, bytes and collectives in the body of
a loop count once. Products are taken to run at the rate of bfloat16: TPUs round factors to it by default, GPUs to
TF32, at half that rate. The compiler runs with less effort than in training (`--effort`): three layers of the speech
encoder take 8 s instead of 73, with the same FLOP, 6 % fewer bytes and 16 % more temporaries.

The last line is one JSON object: `topology`, `num_slices`, `global_batch` and `stages`: name -> `fits`,
`bytes_per_device`, `flops_per_device`, `collective_bytes`, `step_s`, `predicted_efficiency`; with `--largest_batch`
also `largest_rows_per_device`. A stage that does not fit has no other numbers.
"""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags

# Before JAX starts: this process compiles for TPUs and has none.
os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}

import jax
import numpy as np
from ml_collections import ConfigDict, config_flags

from benchmarks.collectives import find_collectives, total_seconds
from benchmarks.topology import Topology, eight_chips, find_topology
from benchmarks.traffic import memory_traffic
from configs import dee, deeptalk, deeptalk_stage2, fer, lip_reader, motion_prior
from configs.common import VARIANTS
from data_pipeline.prepare import prepare
from deeptalk_jax.assembly.model_dir import Part
from deeptalk_jax.cli import run_tool
from deeptalk_jax.errors import UserError
from deeptalk_jax.stages.base import Stage
from deeptalk_jax.stages.registry import stage_class
from deeptalk_jax.training.chips import Chip
from deeptalk_jax.training.mesh import make_mesh
from deeptalk_jax.training.runner import jit_step
from deeptalk_jax.training.step import Step, stage_step

PyTree = Any

_MODULES = {
    "fer": fer,
    "dee": dee,
    "motion_prior": motion_prior,
    "lip_reader": lip_reader,
    "deeptalk": deeptalk,
    "deeptalk_stage2": deeptalk_stage2,
}
_COLLECTIVES_SHOWN = 8
_MOST_ROWS = 4096  # on a device, where the search for the largest batch ends

_TOPOLOGY = flags.DEFINE_string(
    "topology",
    "v5e:16x16",
    "Generation and shape: v4:4x4x8, v6e:16x16, h100:8x32 (GPUs of a host x hosts) ...",
)
_NUM_SLICES = flags.DEFINE_integer("num_slices", 1, "Slices of that shape, joined by the network.")
_GLOBAL_BATCH = flags.DEFINE_integer("global_batch", 4096, "Rows of a batch over all devices.")
_STAGES = flags.DEFINE_list("stages", list(_MODULES), "Stages to compile.")
_EFFORT = flags.DEFINE_float(
    "effort",
    -1.0,
    "Of the compiler: from -1, the fastest, to 1; 0 as in training.",
    lower_bound=-1.0,
    upper_bound=1.0,
)
_LARGEST_BATCH = flags.DEFINE_bool("largest_batch", False, "Also look how many rows fit on a device.")
_VARIANT = flags.DEFINE_enum("variant", "base", VARIANTS, "Of the stages that --config does not name.")
_CONFIG = config_flags.DEFINE_config_file("config", None, "Config of one of the stages, with overrides.")


class StepCost(NamedTuple):
    """What a compiled step takes on a device.

    Attributes:
        argument_bytes: state, frozen variables and batch; the new state takes the place of the old.
        temporary_bytes: what it needs besides.
        flops: floating point operations.
        memory_bytes: read and written.
        collectives: see `find_collectives`.
    """

    argument_bytes: int
    temporary_bytes: int
    flops: float
    memory_bytes: float
    collectives: list

    @property
    def total_bytes(self) -> int:
        """All that must fit into the device's memory."""
        return self.argument_bytes + self.temporary_bytes


def stage_configs(data_dir: str, global_batch: int) -> dict[str, ConfigDict]:
    """Config of every stage, reading its statistics from `data_dir`."""
    configs = {}
    for name, module in _MODULES.items():
        given = _CONFIG.value if _CONFIG.value is not None and _CONFIG.value.stage == name else None
        config = given or module.get_config(f"variant={_VARIANT.value}")
        config = config.copy_and_resolve_references().unlock()
        config.data.data_dir, config.data.batch_size = data_dir, global_batch
        configs[name] = config.lock()
    return configs


def abstract_stages(configs: dict[str, ConfigDict]) -> dict[str, Stage]:
    """Every stage on shapes of the parts that come before it."""
    parts: dict[str, Part] = {}
    stages = {}
    for name, config in configs.items():
        stage = stages[name] = stage_class(name)(config, dict(parts))
        shapes = jax.eval_shape(stage.init, jax.random.key(0))
        parts.setdefault(stage.exported_part(), Part(config, shapes))
    return stages


def compile_step(stage: Stage, devices: list[jax.Device], effort: float = 0.0) -> jax.stages.Compiled:
    """The real train step of a stage, for all the devices; `effort` is that of the compiler, from -1 to 1."""
    config = stage.config
    mesh = make_mesh(fsdp_devices=config.fsdp_devices, devices=devices)
    update, state, frozen, batch = _step_and_shapes(stage)
    lowered = jit_step(update, mesh, state, frozen).lower(state, frozen, batch)
    options = {"exec_time_optimization_effort": effort}
    if devices[0].platform == "gpu":
        options["xla_gpu_enable_triton_gemm"] = False  # its tiles are tuned on a device
    return lowered.compile(options)


def _step_and_shapes(stage: Stage) -> tuple[Step, PyTree, PyTree, PyTree]:
    """The step of a stage, and the shapes that it takes."""
    frozen = _shapes(stage.constants())
    _, initial_state, update = stage_step(stage, stage.config, frozen)
    state = jax.eval_shape(initial_state, jax.random.key(0))
    batch = stage.batch_shapes()
    batch["audio"] = jax.ShapeDtypeStruct(batch["audio"].shape, np.int16)  # as loaded
    return update, state, frozen, batch


def step_cost(stage: Stage, compiled: jax.stages.Compiled, num_devices: int) -> StepCost:
    """What the compiler says of the step.

    The one for GPUs counts neither FLOP nor bytes: FLOP are those of the program before it is compiled, bytes are read
    from the compiled one (`benchmarks/traffic.py`).
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
    """Roofline of computing and memory, then the collectives."""
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
    """Of the stage's step; None where the compiler finds no room for it."""
    try:
        return step_cost(stage, compile_step(stage, devices, _EFFORT.value), len(devices))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(f"{stage.name}: {stage.config.data.batch_size} rows do not fit ({str(error).splitlines()[0]})")
        return None


def largest_rows(rows: int, total_bytes: Callable[[int], int | None], memory_bytes: float) -> int:
    """Most rows that fit: `rows` times a power of two, or a half, a quarter ... of them; 0 if none do.

    Args:
        rows: to start from.
        total_bytes: rows to what they take; None where the compiler finds no room.
        memory_bytes: what there is.
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
    """Numbers of one stage for the JSON line; prints the others."""
    name, rows = stage.name, stage.config.data.batch_size
    devices, chip, num_groups = topology
    if rows % len(devices):
        raise UserError(f"--global_batch={rows} does not divide over {len(devices)} devices")
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
        print(f"    at most {found['largest_rows_per_device']} rows on each fit")
    return found


def _pod() -> None:
    unknown = [name for name in _STAGES.value if name not in _MODULES]
    if unknown:
        raise UserError(f"--stages: {unknown[0]!r} is not one of {', '.join(_MODULES)}")
    # JAX cannot read back what was compiled for devices that are absent.
    jax.config.update("jax_enable_compilation_cache", False)
    topology, eight = find_topology(_TOPOLOGY.value, _NUM_SLICES.value), eight_chips(_TOPOLOGY.value)
    devices = topology.devices
    print(f"{len(devices)} x {devices[0].device_kind}, {_GLOBAL_BATCH.value // len(devices)} rows on each")
    with tempfile.TemporaryDirectory() as data_dir:
        prepare("synthetic_talk", data_dir, num_clips=64)
        stages = abstract_stages(stage_configs(data_dir, _GLOBAL_BATCH.value))
        found = {name: _measure(stages[name], topology, eight) for name in _STAGES.value}
    line = {"topology": _TOPOLOGY.value, "num_slices": _NUM_SLICES.value, "global_batch": _GLOBAL_BATCH.value}
    print(json.dumps(line | {"stages": found}))


if __name__ == "__main__":
    run_tool(_pod)
