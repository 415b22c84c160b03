"""Backgrounds of the corpus: their share, level and spectrum, and that they change no motion."""

import numpy as np
import pytest

from data_pipeline.synthetic_talk import background, clip
from data_pipeline.synthetic_talk.clip import make_clip, plan_split

SILENCE = np.zeros(48_000, np.int16)


def sound_of(kind, monkeypatch, seed=0):
    monkeypatch.setattr(background, "RATE", 1.0)
    monkeypatch.setattr(background, "_KINDS", (kind,))
    return background.add_background(SILENCE, 1.5, np.random.default_rng(seed)) / 32768.0


def energy_share(sound, low_hz, high_hz):
    power = np.abs(np.fft.rfft(sound)) ** 2
    frequencies = np.fft.rfftfreq(len(sound), 1 / 16_000)
    return power[(frequencies >= low_hz) & (frequencies < high_hz)].sum() / power.sum()


@pytest.mark.parametrize(
    ("kind", "low_hz", "high_hz"),
    [
        ("hum", 45, 370),
        ("rumble", 5, 210),
        ("noise", 55, 7900),
        ("music", 100, 4000),
        ("breath", 280, 5200),
    ],
)
def test_sounds_have_their_band_and_level(kind, low_hz, high_hz, monkeypatch):
    for seed in range(4):
        sound = sound_of(kind, monkeypatch, seed)
        assert energy_share(sound, low_hz, high_hz) > 0.97
        level_db = 20 * np.log10(np.sqrt(np.mean(sound[sound != 0] ** 2)))
        assert -61 < level_db < -30


def test_a_breath_ends_where_speech_begins(monkeypatch):
    sound = sound_of("breath", monkeypatch)
    assert np.abs(sound[24_000:]).max() == 0
    assert np.abs(sound[12_000:24_000]).max() > 0


def test_a_share_of_the_clips_has_a_background():
    rng = np.random.default_rng(0)
    touched = [background.add_background(SILENCE[:3200], 0.1, rng).any() for _ in range(400)]
    assert abs(np.mean(touched) - background.RATE) < 0.08


def test_a_background_changes_the_sound_and_not_the_motion(monkeypatch):
    plan = plan_split("train", 8, seed=0)[1]
    monkeypatch.setattr(clip, "_LONG_LEAD_RATE", 0.0)
    studio = make_clip(plan, studio=True)
    monkeypatch.setattr(background, "RATE", 1.0)
    room = make_clip(plan)
    np.testing.assert_array_equal(room.motion, studio.motion)
    assert (room.audio != studio.audio).any()


def test_a_long_silence_before_the_speech_keeps_the_mouth_shut(monkeypatch):
    plan = plan_split("train", 8, seed=0)[1]
    monkeypatch.setattr(clip, "_LONG_LEAD_RATE", 1.0)
    longer, studio = make_clip(plan), make_clip(plan, studio=True)
    added = len(longer.motion) - len(studio.motion)
    assert added >= 12
    assert longer.motion[:added, 50].max() < 0.03
    assert (longer.visemes[:added] == 0).all()
