"""Face score of a stand-in for the stage, and its table."""

from types import SimpleNamespace

import numpy as np
import pytest

from deeptalk_jax.evaluation.face import FaceClip, face_report
from deeptalk_jax.studies.face_score import measure
from deeptalk_jax.studies.face_score.table import lines


class StandIn:
    """A stage whose motions open the jaw half as far as the truth, and smile at half the strength."""

    config = SimpleNamespace(head="procedural")

    def predict(self, variables, split, *, num_samples):
        assert (variables, split, num_samples) == ("variables", "validation", 0)
        return []

    def measure_faces(self, variables, split, clips, points):
        faces = []
        for emotion, intensity in ((0, 0), (1, 2)):
            truth = np.zeros((20, 53), np.float32)
            truth[:, 50] = 0.1 * np.sin(np.arange(20.0)) ** 2
            truth[:, 16] = 0.8 * emotion
            motions = {"truth": truth, "prior": truth, "generated": 0.5 * truth}
            faces.append(FaceClip(motions, emotion, intensity, np.full(20, -1)))
        return faces, face_report(faces, None, points)


@pytest.fixture
def report(monkeypatch):
    config = SimpleNamespace(data=SimpleNamespace(data_dir="from training", eval_clips=0))
    part = SimpleNamespace(config=SimpleNamespace(copy_and_resolve_references=lambda: config))
    monkeypatch.setattr(measure, "load_part", lambda directory, name: part)

    def exported(config, directory):
        assert (config.data.data_dir, config.data.eval_clips, directory) == ("data", 7, "model")
        return StandIn(), "variables"

    monkeypatch.setattr(measure, "exported_stage", exported)
    return measure.score_model("model", "data", "validation", 7)


def test_score_of_a_timid_face(report):
    assert report["num_clips"] == 2
    gain, cosine = (report["gain"]["heard"]["happy"][key] for key in ("gain", "cosine"))
    assert gain[:2] == cosine[:2] == [None, None]
    assert gain[2] == pytest.approx(0.5) and cosine[2] == pytest.approx(1.0)
    generated = report["motions"]["generated"]
    assert generated["jaw_correlation"] == pytest.approx(1.0) and generated["lip_error_mm"] > 0.5
    assert report["motions"]["prior"]["lip_error_mm"] == report["motions"]["truth"]["lip_error_mm"] == 0.0


def test_the_table_leaves_cells_without_clips_empty(report):
    report["gain"]["named"] = {"sad": {"gain": [0.1, 0.2, 0.3], "cosine": [1.0, 1.0, 0.9], "rising": [0.25]}}
    table = list(lines(report))
    assert table[0].split() == ["gain", "(cosine)", "at", "intensity", "happy", "sad"]
    rows = {line[:28].strip(): line[28:] for line in table}
    assert rows["heard 3"].split() == ["0.50(1.00)", "mean", "0.50"]
    assert rows["heard 1"].strip() == ""
    assert rows["named 2"] == f"{'':12s}{'0.20(1.00)':>12s}   mean 0.20"
    assert rows["named: rises with intensity"].split() == ["0.25"]
    assert rows["closed_share"].split() == ["0.000", "0.000", "0.000"]
    assert rows["brow_jitter"].startswith(" " * 12)  # not of the truth
