"""Padding, normalisation and pieces of clips, by hand and against a table of the published demo."""

import numpy as np
import pytest

from deeptalk_jax.inference.clip import Clip, published_num_samples
from deeptalk_jax.inference.options import InferenceOptions
from deeptalk_jax.models.speech.frontend import (
    LAYER_NORM_WAVEFORM_EPS,
    WAV2VEC2_WAVEFORM_EPS,
    normalise_waveform,
)

OURS = InferenceOptions()
PUBLISHED = InferenceOptions("first_10s", "published", 48.0, "log_variance")

# Samples and padded samples, from a run of the published code (reference figures, `pad_table_samples_padded`).
PADDED = {
    1: 2_560,
    639: 2_560,
    640: 2_560,
    2_559: 2_560,
    2_560: 5_120,
    2_561: 5_120,
    16_000: 17_920,
    18_560: 20_480,
    37_000: 38_400,
    37_120: 38_400,
    74_240: 74_240,  # 115.99 frames in double precision
    128_640: 130_560,
    160_000: 161_280,
    192_000: 194_560,
}


@pytest.mark.parametrize(("num_samples", "padded"), PADDED.items())
def test_published_padding_equals_the_table(num_samples, padded):
    assert published_num_samples(num_samples) == padded
    assert Clip(np.ones(num_samples, np.float32), PUBLISHED).num_samples == padded
    assert Clip(np.ones(num_samples, np.float32), OURS).num_samples == num_samples


def test_published_padding_has_the_same_rounding_errors():
    whole = range(2_560, 300_000, 2_560)
    assert [samples for samples in whole if published_num_samples(samples) == samples] == [
        74_240,
        145_920,
        148_480,
        289_280,
        291_840,
        294_400,
        296_960,
    ]
    short = {
        -(-padded // 640)
        for padded in (published_num_samples(640 * frames + 1) for frames in range(1_700))
        if padded % 640
    }
    assert short == {804, 812, 1_608, 1_624}


def test_published_padding_does_not_push_a_clip_into_a_second_window():
    for frames in (1_197, 1_199, 1_200):
        assert Clip(np.ones(640 * frames, np.float32), PUBLISHED).num_model_frames == 1_200
    assert Clip(np.ones(640 * 1_200 + 1, np.float32), PUBLISHED).num_model_frames == 1_204


@pytest.mark.parametrize("options", [OURS, PUBLISHED])
@pytest.mark.parametrize("gain", [1e-6, 1.0, 1e30])
def test_quiet_and_loud_clips_are_normalised(options, gain):
    wave = np.random.default_rng(0).normal(3.0, 2.0, 5_001).astype(np.float32)
    clip = Clip(np.float32(gain) * wave, options)
    sound = np.pad(wave, (0, clip.num_samples - len(wave))).astype(np.float64)
    piece = clip.piece(0, clip.num_samples, 8_000, eps=0.0)
    assert piece.dtype == np.float32 and not piece[clip.num_samples :].any()
    np.testing.assert_allclose(
        piece[: len(sound)], (sound - sound.mean()) / sound.std(), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(clip.piece(640, 1_280, 1_300, eps=0.0)[:1_280], piece[640:1_920])


def test_a_clip_is_normalised_as_in_training():
    """Training normalises the rows of a padded batch, each over its own samples."""
    rng = np.random.default_rng(2)
    batch = rng.normal(0.01, 0.2, (2, 6_400)).astype(np.float32)
    lengths = np.array([6_400, 1_234], np.int32)
    for eps in (WAV2VEC2_WAVEFORM_EPS, LAYER_NORM_WAVEFORM_EPS):
        trained = normalise_waveform(batch, lengths, eps=eps)
        for row, length in zip(range(2), lengths, strict=True):
            used = Clip(batch[row, :length], OURS).piece(0, length, 6_400, eps=eps)
            np.testing.assert_allclose(used, trained[row], rtol=1e-4, atol=1e-5)


def test_a_clip_of_many_blocks_is_normalised():
    wave = np.random.default_rng(1).normal(0.1, 0.2, (1 << 21) + 77).astype(np.float32)
    piece = Clip(wave, OURS).piece(0, len(wave), len(wave), eps=1e-7)
    np.testing.assert_allclose(piece.mean(dtype=np.float64), 0.0, atol=1e-6)
    np.testing.assert_allclose(piece.std(dtype=np.float64), 1.0, rtol=1e-5)


def test_a_constant_clip_becomes_silence():
    for wave in (np.zeros(7), np.full(7, 0.25), np.ones(1)):
        piece = Clip(wave.astype(np.float32), OURS).piece(0, len(wave), 9, eps=1e-7)
        np.testing.assert_array_equal(piece, np.zeros(9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"emotion_windows": "all"}, "inference.emotion_windows='all': expected one of pooled, first_10s"),
        ({"waveform_padding": "zeros"}, "inference.waveform_padding='zeros': expected one of"),
        ({"alpha_mode": "std"}, "inference.alpha_mode='std': expected one of"),
        ({"max_window_s": 20.5}, r"inference.max_window_s=20.5: expected a multiple of 0.16 s"),
        ({"max_window_s": 1.6}, r"max_window_s=1.6: expected .* at least 7.68 s"),
    ],
)
def test_unusable_inference_options_are_rejected(change, message):
    with pytest.raises(ValueError, match=message):
        InferenceOptions(**change)
