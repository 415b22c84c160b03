"""Study of the sampling controls, on a stand-in model with known samples."""

from types import SimpleNamespace

import numpy as np
import pytest

from data_pipeline.records import Record
from deeptalk_jax.head.load import load_head
from deeptalk_jax.inference.options import Sampling
from deeptalk_jax.studies.sampling_controls.chart import draw_controls
from deeptalk_jax.studies.sampling_controls.measure import SWEEPS, study


class StandIn:
    """A model that opens the jaw in its i-th sample by i times a sum of the controls, without temperature_bottom."""

    head = load_head("procedural")

    def animate(self, sounds, *, num_samples=None, blinks, **settings):
        assert blinks is False  # the learned motion is measured
        if num_samples is None:
            return [self._motion(sound, 0.0) for sound in sounds]
        drawn = Sampling(num_samples=num_samples, **settings)
        wide = 0.01 * (drawn.alpha + drawn.temperature_top * drawn.top_p)
        return [[self._motion(sound, wide * number) for number in range(num_samples)] for sound in sounds]

    def _motion(self, sound, opening):
        assert np.abs(sound).max() <= 1.0
        frames = np.zeros((-(-len(sound) // 640), 53), np.float32)
        frames[:, 50] = opening
        return SimpleNamespace(frames=lambda: frames)


def test_each_control_is_varied_alone():
    clips = [
        Record(np.full(640 * length, 20_000, np.int16), np.zeros((length, 53), np.float32), {}, "", "")
        for length in (5, 9)
    ]
    report = study(StandIn(), clips, 3)
    assert {name: tuple(values["values"]) for name, values in report.items()} == dict(SWEEPS)
    for name, values in report.items():
        assert values["rise"] == (name != "temperature_bottom")
        assert values["lips_mm"][0] == values["lip_error_mm"][0] == 0.0
        assert len(values["face_mm"]) == len(SWEEPS[name])
    # Twice the opening gives twice the distance. The sweep of alpha has temperature 0, that of top_p temperature 1.
    alpha, nucleus = report["alpha"], report["top_p"]
    assert alpha["lips_mm"][3] == pytest.approx(2 * alpha["lips_mm"][2], rel=0.01)
    assert nucleus["lips_mm"][-1] == pytest.approx(alpha["lips_mm"][2], rel=1e-4)
    picture = draw_controls({"controls": report, "num_samples": 3, "num_clips": 2, "split": "test"})
    assert picture.startswith(b"\x89PNG")
