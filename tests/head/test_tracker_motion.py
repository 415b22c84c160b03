"""Motions as trackers write them: every form gives the same frames, and what cannot be used is one line."""

import logging

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from deeptalk_jax.errors import UserError
from deeptalk_jax.head.tracker_motion import at_motion_rate, frame_rate_hz, tracker_motion

RNG = np.random.default_rng(0)
EXPRESSION = RNG.normal(0, 0.3, (7, 100)).astype(np.float32)
POSE = RNG.normal(0, 0.05, (7, 6)).astype(np.float32)
PLAIN = {"expression": EXPRESSION[:, :50], "jaw_pose": POSE[:, 3:], "fps": 25}
WANTED = np.concatenate([EXPRESSION[:, :50], POSE[:, 3:]], axis=1)


def without(*names):
    return {name: value for name, value in PLAIN.items() if name not in names}


@pytest.mark.parametrize(
    "arrays",
    [
        PLAIN,
        PLAIN | {"jaw_pose": POSE},
        PLAIN | {"expression": EXPRESSION},
        PLAIN | {"fps": np.array([25.0])},
        PLAIN | {"fps": np.full(7, 25)},
        PLAIN | {"fps": np.array("25")},
        PLAIN | {"fps": np.array(b"25.0")},
        PLAIN | {"expression": EXPRESSION[None, :, :50].astype(np.float64), "jaw_pose": POSE[None, :, 3:]},
        without("jaw_pose")
        | {"pose": POSE, "global_pose": POSE[:, :3], "shape": np.zeros((7, 100))},  # EMOCA
        without("expression") | {"expr": EXPRESSION},  # VHAP
        without("expression", "jaw_pose")
        | {
            "expression_params": EXPRESSION[:, :50],
            "jaw_params": POSE[:, 3:],
            "pose_params": POSE[:, :3],
        },  # SMIRK
        without("expression", "jaw_pose") | {"exp": EXPRESSION, "jawpose": POSE[:, 3:]},  # EMICA
    ],
)
def test_all_forms_give_the_same_frames(arrays):
    motion = tracker_motion(arrays, source="a.npz")
    assert motion.dtype == np.float32
    np.testing.assert_array_equal(motion, WANTED)


def test_the_rate_of_the_caller_is_used_where_the_file_has_none():
    np.testing.assert_array_equal(tracker_motion(without("fps"), source="a.npz", rate_hz=25), WANTED)
    assert len(tracker_motion(PLAIN, source="a.npz", rate_hz=50)) == 7


def test_the_columns_that_are_left_out_are_logged(caplog):
    with caplog.at_level(logging.WARNING):
        tracker_motion(PLAIN | {"expression": EXPRESSION}, source="a.npz")
    assert caplog.messages == ["a.npz: expression has 100 coefficients per frame; the first 50 are used"]


MATRIX_ROWS = np.tile(np.float32([1, 0, 0, 0, 1, 0]), (7, 1))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (without("expression"), "has no array 'expression', nor exp, expr, expression_params, expcode"),
        (without("jaw_pose") | {"pose": POSE[:, :3]}, r"pose has shape \(7, 3\), expected rows of 6 numbers"),
        (without("fps"), "holds no fps, and few trackers store it; add an array fps"),
        (
            PLAIN | {"jaw_pose": np.degrees(POSE[:, 3:] + 0.2)},
            r"frame 0, jaw_pose\[0\]: .* expected radians .*degrees",
        ),
        (PLAIN | {"jaw_pose": MATRIX_ROWS}, "jaw_pose holds two rows of a rotation matrix"),
        (PLAIN | {"expression": EXPRESSION[:, :52]}, r"shape \(7, 52\), expected rows of 50 or 100 numbers"),
        (PLAIN | {"expression": EXPRESSION[:, :50].astype(int)}, "expression holds int64, expected floating"),
        (
            PLAIN | {"expression": EXPRESSION[:, :50] * np.inf},
            r"frame 0, expression\[0\]: .*inf is not finite",
        ),
        (
            PLAIN | {"jaw_pose": POSE[:5, 3:], "fps": 30.0},
            r"expression 7 frames \(0.23 s\) and jaw_pose 5 frames \(0.17 s\) at 30 frames per second; expected equal",
        ),
        ({name: PLAIN[name][:0] for name in ("expression", "jaw_pose")} | {"fps": 25}, r"shape \(0, 53\)"),
    ],
)
def test_what_cannot_be_used_is_one_line(arrays, message):
    with pytest.raises(UserError, match=rf"^a\.npz: .*{message}") as raised:
        tracker_motion(arrays, source="a.npz")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("value", "rate_hz"),
    [(30, 30), ("29.97", 29.97), ("30000/1001", 30000 / 1001), (np.array(["60"]), 60), (np.float32(25), 25)],
)
def test_frame_rates_are_numbers_or_text(value, rate_hz):
    assert frame_rate_hz(np.asarray(value), "a.npz") == pytest.approx(rate_hz, rel=1e-6)


@pytest.mark.parametrize("value", [0, -25, np.nan, np.inf, "fast", "25/0", "", [25, 30], [], 25000])
def test_other_frame_rates_are_refused(value):
    with pytest.raises(
        UserError, match=r"^a\.npz: fps is .*, expected one number of frames per second, 1 to 1000"
    ):
        frame_rate_hz(np.asarray(value), "a.npz")


def test_other_rates_are_interpolated_to_25_by_hand():
    motion = np.zeros((5, 53), np.float32)
    motion[:, 0] = [0, 1, 2, 3, 4]  # at 50 Hz: frames 0, 2 and 4 remain
    np.testing.assert_allclose(at_motion_rate(motion, 50.0)[:, 0], [0, 2])  # 0.1 s are 2.5 frames
    np.testing.assert_allclose(at_motion_rate(motion[:4], 12.5)[:, 0], [0, 0.5, 1, 1.5, 2, 2.5, 3, 3])
    np.testing.assert_array_equal(at_motion_rate(motion, 25.0), motion)
    assert at_motion_rate(motion[:1], 100.0).shape == (1, 53)
    assert len(at_motion_rate(np.zeros((2997, 53), np.float32), 29.97)) == 2500


def test_the_jaw_turns_along_the_shortest_rotation():
    motion = np.zeros((31, 53))
    motion[:, 50:] = Rotation.random(31, rng=3).as_rotvec()
    times_s = np.arange(26) / 25
    wanted = Slerp(np.arange(31) / 30, Rotation.from_rotvec(motion[:, 50:]))(times_s[:-1])
    found = Rotation.from_rotvec(at_motion_rate(motion, 30.0)[:25, 50:])
    assert (found.inv() * wanted).magnitude().max() < 1e-5
