"""Blinks: their rate and length, where none may start, and lids that meet on the embedded head without crossing."""

import numpy as np
import pytest

from data_pipeline.synthetic_talk.expressions import PROTOTYPES, sides
from deeptalk_jax.errors import UserError
from deeptalk_jax.head.actions import ACTION_INDEX
from deeptalk_jax.head.lbs import head_vertices
from deeptalk_jax.inference.idle import blinks
from deeptalk_jax.inference.idle.blinks import add_blinks, blink_closure, resolve_blinks

LIDS = [
    ACTION_INDEX[f"{name}_{side}"]
    for name in ("upper_lid_raise", "lid_tighten", "eye_close")
    for side in ("left", "right")
]


@pytest.fixture(scope="module")
def head(model):
    return model.head


def onsets_and_lengths(closure):
    edges = np.diff(np.concatenate([[0], closure > 0, [0]]).astype(int))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return starts, stops - starts


def test_rate_length_and_refractory_time_over_ten_minutes():
    for seed in range(20):
        closure = blink_closure(15_000, seed)
        starts, lengths = onsets_and_lengths(closure)
        assert 8 <= len(starts) / 10 <= 25
        assert lengths[:-1].min() >= 5 and lengths[:-1].max() <= 8
        assert np.diff(starts).min() >= 24
        assert np.sum(closure == 1) >= len(starts) - 1
        assert closure.min() == 0 and closure.max() == 1


def test_a_closure_depends_on_its_seed_alone():
    np.testing.assert_array_equal(blink_closure(500, 3), blink_closure(900, 3)[:500])
    np.testing.assert_array_equal(blink_closure(400, 3, first_frame=500), blink_closure(900, 3)[500:])
    assert (blink_closure(900, 3) != blink_closure(900, 4)).any()


def test_gap_and_slopes_of_the_lids_are_those_of_the_embedded_head(head):
    for side in ("left", "right"):
        upper, lower = head.landmarks[f"{side}_upper_lid"], head.landmarks[f"{side}_lower_lid"]
        rest, *slopes = 1000 * (
            np.column_stack([head.template[:, 1:2], head.expression_directions[:, 1]])[[upper, lower]]
            * [[1], [-1]]
        ).sum(axis=0)
        assert rest == pytest.approx(blinks.LID_GAP_MM, abs=1e-3)
        np.testing.assert_allclose(slopes, blinks._lid_slopes(side), atol=1e-3)


@pytest.mark.parametrize("emotion", PROTOTYPES)
def test_lids_meet_without_crossing_in_every_emotion(head, emotion):
    motion = np.zeros((400, 53), np.float32)
    for action, strength in PROTOTYPES[emotion].items():
        motion[:, list(sides(action))] = strength
    blinking = add_blinks(motion, seed=1)
    closure = blink_closure(400, 1)
    assert (closure == 1).any()
    for side in ("left", "right"):
        upper, lower = head.landmarks[f"{side}_upper_lid"], head.landmarks[f"{side}_lower_lid"]

        def gap(row, upper=upper, lower=lower):
            vertices = np.asarray(head_vertices(head, row[:50], row[50:]))
            return vertices[upper, 1] - vertices[lower, 1]

        rest = gap(np.zeros(53, np.float32))
        first = int(np.flatnonzero(closure)[0])
        gaps = np.array([gap(row) for row in blinking[first : first + 8]])
        assert gaps.min() > -0.05 * rest
        assert np.abs(gaps[closure[first : first + 8] == 1]).max() < 0.05 * rest


def test_only_lid_actions_of_blinking_frames_change():
    motion = np.random.default_rng(0).normal(0, 0.05, (500, 53)).astype(np.float32)
    blinking = add_blinks(motion, seed=2)
    changed = blinking != motion
    assert changed.any() and not np.delete(changed, LIDS, axis=1).any()
    assert not changed[blink_closure(500, 2) == 0].any()


def test_no_blink_within_a_second_of_closed_lids():
    motion = np.zeros((1500, 53), np.float32)
    start = int(np.flatnonzero(blink_closure(1500, 5))[0])
    motion[start + 4 : start + 6, [ACTION_INDEX["eye_close_left"], ACTION_INDEX["eye_close_right"]]] = 0.9
    blinking = add_blinks(motion, seed=5)
    np.testing.assert_array_equal(blinking[: start + 20], motion[: start + 20])
    assert (blinking != motion).any()


def test_a_head_without_lid_actions_does_not_blink():
    assert resolve_blinks(None, True) and not resolve_blinks(None, False) and not resolve_blinks(False, True)
    with pytest.raises(UserError, match="blinks=True"):
        resolve_blinks(True, False)


def test_blinks_are_the_same_alone_and_in_a_list_and_differ_between_samples(model, babble, monkeypatch):
    # The random model holds its lids closed, so without this no blink would start.
    monkeypatch.setattr(blinks, "_CLOSED_SHARE", -1e6)
    long, short = babble(8.0), babble(1.9)
    plain = model.animate(long, blinks=False)
    alone = model.animate(long)
    expected = add_blinks(plain.frames(), seed=0)
    assert (expected != plain.frames()).any()
    np.testing.assert_array_equal(alone.frames(), expected)
    np.testing.assert_array_equal(model.animate([short, long])[1].frames(), alone.frames())
    assert alone.provenance.blinks and not plain.provenance.blinks
    samples = {"num_samples": 2, "temperature_top": 1.0}
    for seed, (with_blinks, without) in enumerate(
        zip(model.animate(long, **samples), model.animate(long, blinks=False, **samples), strict=True)
    ):
        np.testing.assert_array_equal(with_blinks.frames(), add_blinks(without.frames(), seed))
