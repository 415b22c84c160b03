"""Cutting clips into windows and joining the motions of the windows."""

from itertools import pairwise

import numpy as np
import pytest

from deeptalk_jax.inference.windows import (
    CONTEXT_FRAMES,
    CROSSFADE_FRAMES,
    MotionWindow,
    bucket_for,
    crossfade_windows,
    cut_windows,
    join_windows,
)

SIZE = 512
LENGTHS = (
    *range(1, 12),
    63,
    64,
    65,
    511,
    512,
    513,
    515,
    640,
    641,
    895,
    896,
    897,
    *range(1_000, 2_000, 61),
    2_000,
)


@pytest.mark.parametrize(
    ("num_frames", "bucket"),
    [
        (1, 64),
        (64, 64),
        (65, 96),
        (96, 96),
        (97, 128),
        (129, 192),
        (193, 256),
        (385, 512),
        (512, 512),
        (10**9, 512),
    ],
)
def test_buckets_by_hand(num_frames, bucket):
    assert bucket_for(num_frames, 512) == bucket


def test_buckets_end_at_the_longest():
    assert [bucket_for(frames, 1_200) for frames in (1_020, 1_025, 1_200, 9_999)] == [
        1_024,
        1_200,
        1_200,
        1_200,
    ]
    assert bucket_for(249, 250) == 250
    assert len({bucket_for(frames, 1_200) for frames in range(1, 1_201)}) == 10


@pytest.mark.parametrize("num_frames", [*range(1, 700, 7), 1_199, 4_000])
def test_a_bucket_holds_its_piece_with_little_padding(num_frames):
    bucket = bucket_for(num_frames, 4_096)
    assert num_frames <= bucket <= max(64, 1.5 * num_frames) and bucket % 4 == 0


def test_windows_by_hand():
    assert cut_windows(1, SIZE) == [MotionWindow(0, 1)]
    assert cut_windows(512, SIZE) == [MotionWindow(0, 512)]
    assert cut_windows(513, SIZE) == [MotionWindow(0, 512), MotionWindow(384, 129)]
    assert cut_windows(1_000, SIZE) == [MotionWindow(0, 512), MotionWindow(384, 512), MotionWindow(768, 232)]
    assert cut_windows(1_000, 1_200) == [MotionWindow(0, 1_000)]
    assert cut_windows(1_300, 1_200) == [MotionWindow(0, 1_200), MotionWindow(1_072, 228)]


@pytest.mark.parametrize("num_frames", LENGTHS)
def test_windows_cover_the_clip_with_context_at_every_seam(num_frames):
    windows = cut_windows(num_frames, SIZE)
    assert windows[0].first_frame == 0
    assert sum(windows[-1]) == num_frames
    for before, after in pairwise(windows):
        assert before.num_frames == SIZE
        assert after.first_frame % 4 == 0
        # Both windows hold the context on either side of their seam, and the whole cross-fade.
        assert sum(before) - after.first_frame == 2 * CONTEXT_FRAMES
        assert after.num_frames > 2 * CONTEXT_FRAMES > CROSSFADE_FRAMES


def windows_of(signal, windows, *, frames_per_row=1, padding=0):
    """Cuts a signal into the rows of every window, followed by rows of padding."""
    return [
        np.concatenate(
            [
                signal[first // frames_per_row : -(-(first + count) // frames_per_row)],
                np.full((padding, *signal.shape[1:]), 99, signal.dtype),
            ]
        )
        for first, count in windows
    ]


@pytest.mark.parametrize("frames_per_row", [1, 2, 4])
@pytest.mark.parametrize("num_frames", LENGTHS)
def test_windows_of_one_signal_join_to_it(num_frames, frames_per_row):
    num_rows = -(-num_frames // frames_per_row)
    codes = np.arange(num_rows, dtype=np.int32)
    windows = cut_windows(num_frames, SIZE)
    parts = windows_of(codes, windows, frames_per_row=frames_per_row, padding=3)
    joined = join_windows(windows, parts, frames_per_row=frames_per_row)
    assert joined.dtype == np.int32
    np.testing.assert_array_equal(joined, codes)


@pytest.mark.parametrize("num_frames", LENGTHS)
def test_crossfade_of_one_signal_is_the_signal(num_frames):
    signal = np.random.default_rng(num_frames).normal(size=(num_frames, 3)).astype(np.float32)
    windows = cut_windows(num_frames, SIZE)
    faded = crossfade_windows(windows, windows_of(signal, windows, padding=5))
    assert faded.dtype == np.float32
    np.testing.assert_allclose(faded, signal, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("frames_per_row", [1, 2, 4])
def test_each_row_comes_from_the_window_with_the_most_context(frames_per_row):
    windows = cut_windows(1_000, SIZE)
    parts = [np.full(512 // frames_per_row, number) for number in range(3)]
    joined = join_windows(windows, parts, frames_per_row=frames_per_row)
    wanted = np.repeat([0, 1, 2], [448, 384, 168])[::frames_per_row]
    np.testing.assert_array_equal(joined, wanted)


def test_crossfade_is_a_ramp_around_every_seam():
    windows = cut_windows(1_000, SIZE)
    parts = [np.full((512, 1), float(number)) for number in range(3)]
    faded = crossfade_windows(windows, parts)[:, 0]
    ramp = (np.arange(CROSSFADE_FRAMES) + 0.5) / CROSSFADE_FRAMES
    for number, seam in enumerate((448, 832)):
        np.testing.assert_allclose(faded[seam - 8 : seam + 8], number + ramp)
        assert faded[seam - 9] == number and faded[seam + 8] == number + 1
    np.testing.assert_array_equal([part.max() for part in parts], [0, 1, 2])  # inputs are unchanged


def test_the_result_is_a_writeable_copy():
    part = np.zeros((64, 1), np.float32)
    part.flags.writeable = False  # as for arrays from a device
    joined = crossfade_windows(cut_windows(5, SIZE), [part])
    joined[0] = 1.0
    assert joined.shape == (5, 1) and not part.any()
