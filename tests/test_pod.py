"""Tests of `benchmarks.pod`: predictions against hand-computed values, and compilation of a real step."""

import jax
import pytest

from benchmarks.collectives import Collective, find_collectives, total_seconds
from benchmarks.pod import abstract_stages, compile_step, largest_rows, step_cost, step_seconds
from benchmarks.topology import find_topology
from benchmarks.traffic import memory_traffic
from configs import motion_prior
from deeptalk_jax.errors import UserError
from deeptalk_jax.training.chips import Chip

HLO = """
  %a = (f32[128,256]{1,0:T(8,128)}, bf16[3]{0}) all-reduce(%x, %y), channel_id=1, replica_groups=[1,256]<=[256]
  %b = f32[1024]{0} reduce-scatter(%x), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  %c = (f32[4]{0}, f32[16]{0}) all-gather-start(%x), replica_groups=[2,4]<=[8], dimensions={0}
  %d = f32[16]{0} all-gather-done(%c)
  %e = (f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1}}
  g = f32[3]{0} all-reduce-start(%x), channel_id=1, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}
  %f = f32[2]{0} add(%all-reduce.1, %all-reduce.2)
"""


def test_collectives_are_found_in_hlo():
    assert find_collectives(HLO, 8) == [
        Collective("all-reduce", 4 * 128 * 256 + 2 * 3, 256),
        Collective("reduce-scatter", 4 * 4 * 1024, 4),
        Collective("all-gather", 4 * 16, 4),
        Collective("collective-permute", 4 * 8, 8),
        Collective("all-reduce", 4 * 3, 4),
    ]


FUSED = """
%cut (param_0.1: f32[100], param_1: f32[8]) -> f32[8] {
  %param_0.1 = f32[100]{0} parameter(0)
  %param_1 = f32[8]{0} parameter(1)
  %slice.1 = f32[8]{0} slice(%param_0.1), slice={[0:8]}
  ROOT %add = f32[8]{0} add(%slice.1, %param_1)
}

%body (state: (s32[], f32[16])) -> (s32[], f32[16]) {
  %state = (s32[], f32[16]{0}) parameter(0)
  %count = s32[] get-tuple-element(%state), index=0
  %array = f32[16]{0} get-tuple-element(%state), index=1
  %exp = f32[16]{0} exponential(%array)
  ROOT %next = (s32[], f32[16]{0}) tuple(%count, %exp)
}

%region (state: (s32[], f32[16])) -> pred[] {
  %state = (s32[], f32[16]{0}) parameter(0)
  ROOT %true = pred[] constant(true)
}

ENTRY %main (x: f32[100], y: f32[8]) -> f32[8] {
  %x = f32[100]{0:T(128)} parameter(0)
  %y = f32[8]{0} parameter(1)
  %fusion = f32[8]{0} fusion(%x, %y), kind=kLoop, calls=%cut, metadata={op_name="f(x, y)"}
  %product = (f32[8]{0}, s8[4194304]{0}) custom-call(%fusion, %y), custom_call_target="gemm"
  %result = f32[8]{0} get-tuple-element(%product), index=0
  %while = (s32[], /*index=1*/f32[16]{0}) while(%tuple), condition=%region, body=%body
  %start = f32[8]{0} all-reduce-start(%result), to_apply=%sum
  ROOT %done = f32[8]{0} all-reduce-done(%start)
}
"""


def test_memory_traffic_equals_the_hand_computed_value():
    fusion, product, loop, reduction = 3 * 32, 3 * 32, 2 * 64, 2 * 32
    assert memory_traffic(FUSED) == fusion + product + loop + reduction
    with pytest.raises(ValueError, match="no ENTRY in the program"):
        memory_traffic(HLO)


def test_collective_times_equal_hand_computed_values():
    chip = Chip(1.0, 1.0, 1.0, link_bytes_per_s=100.0, network_bytes_per_s=10.0)
    assert total_seconds([Collective("all-reduce", 400, 4)], chip) == pytest.approx(2 * 3 / 4 * 4)
    assert total_seconds([Collective("all-gather", 400, 4)], chip) == pytest.approx(3 / 4 * 4)
    assert total_seconds([Collective("collective-permute", 400, 4)], chip) == pytest.approx(4)
    # Two slices of two devices: each slice reduces, then every device sends half of the bytes over the network.
    within, across = 2 * 1 / 2 * 4, 2 * 1 / 2 * 200 / 10
    assert total_seconds([Collective("all-reduce", 400, 4)], chip, 2) == pytest.approx(within + across)
    with pytest.raises(ValueError, match=r"is unknown; expected it in training/chips\.py"):
        total_seconds([Collective("all-reduce", 400, 4)], Chip(1.0))


@pytest.mark.parametrize(("memory", "expected"), [(1700, 16), (800, 8), (50, 0), (10**9, 4096)])
def test_largest_rows_doubles_or_halves_until_the_memory_is_full(memory, expected):
    # A row takes 100 bytes. With little memory the compiler gives up beyond 60 rows.
    def total_bytes(rows):
        return None if memory < 1000 and rows > 60 else 100 * rows

    assert largest_rows(64 if memory == 800 else 4, total_bytes, memory) == expected


@pytest.mark.parametrize(
    ("name", "num_slices", "message"),
    [
        ("v9:2x2", 1, "v9:2x2: expected a shape of one of: v4, v5e"),
        ("h100:8", 1, "h100:8: expected GPUs per host x number of hosts, such as h100:8x32"),
        ("h100:8x2", 2, "and one slice"),
        # The error is the same if the compiler is not installed and if it does not know the shape.
        ("v5e:0x0", 1, r"v5e:0x0: .* \(the compiler comes with pip install"),
    ],
)
def test_unknown_topologies_are_rejected(name, num_slices, message):
    with pytest.raises(UserError, match=message):
        find_topology(name, num_slices)


def test_a_real_step_compiles_and_reduces_its_gradients_over_all_devices():
    config = motion_prior.get_config("variant=mini").unlock()
    config.model.dim, config.model.mlp_dim, config.model.decoder_mlp_dim, config.model.num_heads = (
        8,
        12,
        20,
        4,
    )
    config.data.window_frames, config.data.batch_size = 16, 16
    stage = abstract_stages({"motion_prior": config.lock()})["motion_prior"]
    compiled = compile_step(stage, jax.devices())
    cost = step_cost(stage, compiled, len(jax.devices()))
    assert memory_traffic(compiled.as_text()) == pytest.approx(cost.memory_bytes, rel=0.05)
    params = jax.tree.leaves(jax.eval_shape(stage.init, jax.random.key(0))["params"])
    gradient_bytes = sum(4 * leaf.size for leaf in params)
    reduced = sum(found.num_bytes for found in cost.collectives if found.kind == "all-reduce")
    assert gradient_bytes <= reduced < 4 * gradient_bytes  # also batch statistics and codes
    assert {found.group_size for found in cost.collectives if found.kind == "all-reduce"} == {8}
    assert cost.argument_bytes > 3 * gradient_bytes  # weights and the two moments of Adam
    chip = Chip(cost.flops / 2, 1e9, cost.memory_bytes, 1e12)
    assert step_seconds(cost, chip, 1) == pytest.approx(2.0, rel=1e-3)
