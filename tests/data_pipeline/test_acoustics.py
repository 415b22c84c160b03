"""Tests of vocal emotion: signal processing, levels, pitch and prosody."""

import numpy as np
import pytest

from data_pipeline.synthetic_talk import acoustics
from data_pipeline.synthetic_talk.acoustics import EMOTION_PROSODY, Prosody
from deeptalk_jax.types import EMOTIONS

_RATE_IN, _RATE_OUT = 22_050, 16_000


def _tone(frequency_hz, amplitude=8000.0, seconds=1.0):
    time_s = np.arange(round(_RATE_IN * seconds)) / _RATE_IN
    return np.round(amplitude * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.int16)


def test_resampling_preserves_a_tone():
    ours = acoustics._resample_and_tilt(_tone(440), 0.0)
    time_s = np.arange(len(ours)) / _RATE_OUT
    expected = 8000 / 32767 * np.sin(2 * np.pi * 440 * time_s)
    inside = slice(2000, -2000)
    np.testing.assert_allclose(ours[inside], expected[inside], atol=5e-4)  # the cut edges of the tone ring


def test_tilt_is_in_decibels_per_octave_around_1_khz():
    gain = [
        np.std(acoustics._resample_and_tilt(_tone(hz), 6.0)[400:-400])
        / np.std(acoustics._resample_and_tilt(_tone(hz), 0.0)[400:-400])
        for hz in (500, 1000, 4000)
    ]
    np.testing.assert_allclose(20 * np.log10(gain), [-6.0, 0.0, 12.0], atol=0.01)


def test_rendered_clip_has_whole_frames_silent_edges_and_no_clipping():
    loud = Prosody(loudness_db=20.0)
    clip = acoustics.render(_tone(300), loud, lead_s=0.2, tail_s=0.1, rng=np.random.default_rng(0))
    assert clip.dtype == np.int16 and len(clip) % 640 == 0
    assert 0.75 * 32767 < np.abs(clip.astype(int)).max() < 32767
    level_db = acoustics.frame_level_db(clip)
    assert len(level_db) == len(clip) // 640
    assert level_db[:4].max() < -55 < level_db[8:28].min()


@pytest.mark.parametrize(("loudness_db", "gain"), [(-6.0, 0.5), (6.0, 2.0)])
def test_loudness_scales_the_amplitude(loudness_db, gain):
    calm, other = (
        acoustics.render(
            _tone(300, 500.0), Prosody(loudness_db=db), lead_s=0, tail_s=0, rng=np.random.default_rng(0)
        )
        for db in (-10.0, -10.0 + loudness_db)
    )
    assert np.std(other) / np.std(calm) == pytest.approx(gain, rel=0.01)


def test_pitch_is_found_in_a_tone_but_not_in_noise_or_at_the_edge():
    time_s = np.arange(16_000) / _RATE_OUT
    voiced = (8000 * np.sign(np.sin(2 * np.pi * 200 * time_s))).astype(np.int16)
    assert acoustics.pitch_hz(voiced, 0.5) == pytest.approx(200, rel=0.01)
    noise = (3000 * np.random.default_rng(0).standard_normal(16_000)).astype(np.int16)
    assert acoustics.pitch_hz(noise, 0.5) == 0
    assert acoustics.pitch_hz(voiced, 0.01) == 0  # the analysis window would start before the clip


def test_strength_scales_the_effect_of_an_emotion():
    assert set(EMOTION_PROSODY) == set(EMOTIONS)
    for emotion in EMOTIONS:
        weak = acoustics.draw_prosody(emotion, 0.0, np.random.default_rng(1))
        assert weak == acoustics.draw_prosody("neutral", 1.0, np.random.default_rng(1))
    calm, strong = (acoustics.draw_prosody("angry", s, np.random.default_rng(1)) for s in (0.0, 1.0))
    assert strong.loudness_db - calm.loudness_db == pytest.approx(EMOTION_PROSODY["angry"].loudness_db)
