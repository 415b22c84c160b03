"""Measures of the face over clips with known answers."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.evaluation import face
from deeptalk_jax.evaluation.face_animation import named_faces, reconstructions
from deeptalk_jax.evaluation.face_chart import draw_face, gain_rows
from deeptalk_jax.head.actions import ACTION_INDEX
from deeptalk_jax.head.load import load_head
from deeptalk_jax.metrics.face_points import FacePoints
from deeptalk_jax.models.prior_output import PriorOutput
from deeptalk_jax.types import EMOTIONS, VISEME_CLASSES

HAPPY, SAD = EMOTIONS.index("happy"), EMOTIONS.index("sad")
SMILE, FROWN = ACTION_INDEX["lip_corner_pull_left"], ACTION_INDEX["brow_lower_left"]
EYES = [ACTION_INDEX["eye_close_left"], ACTION_INDEX["eye_close_right"]]
CLOSE = ACTION_INDEX["lip_close"]


@pytest.fixture(scope="module")
def points():
    return FacePoints(load_head("procedural"))


def motion(frames=75, **entries):
    values = np.zeros((frames, 53), np.float32)
    for name, value in entries.items():
        values[:, {"smile": SMILE, "frown": FROWN}[name]] = value
    return values


def clip(emotion, intensity, truth, generated, frames=75):
    motions = {"truth": motion(frames, **truth), "generated": motion(frames, **generated)}
    return face.FaceClip(motions, emotion, intensity, np.full(frames, -1))


def test_gain_is_measured_from_the_neutral_clips_of_the_same_motion():
    clips = [
        clip(0, 0, {"smile": 0.1}, {"smile": 0.3}),
        clip(
            0, 2, {"smile": 0.3}, {"smile": 0.3}, frames=5
        ),  # neutral in truth: 0.2, as each clip counts alike
        clip(HAPPY, 2, {"smile": 1.2}, {"smile": 0.7}),
        clip(HAPPY, 0, {"smile": 0.7}, {"smile": 0.3, "frown": 0.1}),
    ]
    table = face.gain_table(face.expressions(clips, "generated"), face.expressions(clips, "truth"))
    assert list(table) == ["happy"]
    gain, cosine = table["happy"]["gain"], table["happy"]["cosine"]
    assert gain[1] is None and cosine[1] is None  # no clips of intensity 2
    assert gain[2] == pytest.approx(0.4) and cosine[2] == pytest.approx(1.0)
    assert gain[0] == pytest.approx(0.0, abs=1e-6) and cosine[0] == pytest.approx(0.0, abs=1e-6)
    assert face.gain_table(face.expressions(clips[2:], "truth"), face.expressions(clips, "truth")) == {}


def test_named_faces_are_measured_from_the_same_sentences():
    truth = np.full((len(EMOTIONS), 3, 50), np.nan)
    truth[HAPPY] = np.eye(50)[SMILE] * np.array([[0.2], [0.5], [1.0]])
    truth[SAD, 2] = np.eye(50)[FROWN]
    neutral = np.zeros((2, 50))
    neutral[1, SMILE] = 0.5
    shown = np.tile(neutral[:, None, None], (1, len(EMOTIONS), 3, 1))
    shown[0, HAPPY, :, SMILE] += [0.1, 0.5, 0.9]
    shown[1, HAPPY, :, SMILE] += [0.1, 0.7, 0.5]  # falls from 2 to 3
    shown[:, SAD, :, FROWN] = [0.1, 0.2, 0.4]
    table = face.named_table(face.NamedFaces(neutral, shown), truth)
    np.testing.assert_allclose(table["happy"]["gain"], [0.5, 1.2, 0.7])
    assert table["happy"]["rising"] == [0.5] and table["sad"]["rising"] == [1.0]
    assert table["sad"]["gain"][:2] == [None, None]
    assert face.summary(table, "gain") == pytest.approx({"mean": 0.55, "min": 0.4})
    assert gain_rows({"named": table}).rows[1][0] == "sad"


def test_eyes_and_lips_of_a_talking_face(points):
    """The truth closes its lips at m and blinks once; the generated face does neither."""
    truth, visemes = motion(), np.full(75, VISEME_CLASSES.index("velar"))
    truth[10:, 50] = 0.1
    visemes[:10] = VISEME_CLASSES.index("silence")
    visemes[20:24], visemes[30:40] = VISEME_CLASSES.index("bilabial"), VISEME_CLASSES.index("open")
    generated = truth.copy()
    truth[20:24, CLOSE] = 1.0
    for frame in (50, 51, 52):
        truth[frame, EYES] = 1.0
    generated[60, FROWN] = 0.1  # a tremble of one frame
    truth[60, FROWN] = 0.05
    motions = {"truth": truth, "prior": truth, "generated": generated}
    clips = [face.FaceClip(motions, HAPPY, 2, visemes)]
    report = face.face_report(clips, None, points)
    assert report.gains == {}  # there is no neutral clip
    found = report.metrics("generated")
    assert (found["closure_rate_truth"], found["closure_rate_prior"], found["closure_rate"]) == (
        1.0,
        1.0,
        0.0,
    )
    assert (found["closure_auc_truth"], found["closure_auc"]) == (1.0, 0.5)
    assert found["onset_lag_frames"] == found["onset_lag_frames_truth"] == 0.0
    assert found["closed_share_truth"] == pytest.approx(3 / 75) and found["closed_share"] == 0.0
    assert found["blinks_per_minute_truth"] == pytest.approx(20.0) and found["blinks_per_minute"] == 0.0
    # Twice the tremble; the 11 frames around the blink of the truth do not count among its 73.
    assert (
        found["brow_jitter"] == pytest.approx(2.0 * (73 - 11) / 73, rel=1e-3)
        and found["brow_jitter_prior"] == 1.0
    )
    assert not [key for key in found if "rounding" in key]  # no such sounds
    panels = draw_face(clips, report, points)
    assert [panel.name for panel in panels] == ["mouth_and_eyes", "course"]
    assert all(panel.picture.startswith(b"\x89PNG") for panel in panels)


def test_frames_near_blinks_do_not_count_for_smoothness():
    opening = np.ones(20)
    opening[10] = 0.1
    assert np.flatnonzero(~face.away_from_blinks(opening)).tolist() == list(range(5, 14))  # frames 6 to 14


def test_names_of_gains():
    table = {"happy": {"gain": [0.1, 0.2, 0.6], "cosine": [1.0, 1.0, 0.9]}}
    named = {"happy": {**table["happy"], "rising": [0.5]}}
    found = face.FaceReport({"named": named, "prior": table, "heard": table}, {}).metrics("generated")
    assert found == {
        "gain_named_mean": 0.6, "gain_named_min": 0.6, "cosine_named_min": 0.9, "gain_named_rising_min": 0.5,
        "gain_prior_mean": 0.6, "gain_prior_min": 0.6, "cosine_prior_min": 0.9,
        "gain_heard_mean": 0.6, "gain_heard_min": 0.6, "cosine_heard_min": 0.9,
    }  # fmt: skip
    alone = face.FaceReport({"reconstruction": table}, {}).metrics("reconstruction")
    assert set(alone) == {"gain_reconstruction_mean", "gain_reconstruction_min", "cosine_reconstruction_min"}


class Negative:
    """A prior that negates windows of 8 frames."""

    def apply(self, variables, window):
        assert window.shape == (1, 8, 53)
        return PriorOutput(-window, {})


def test_reconstructions_cover_clips_of_any_length():
    motions = [np.random.default_rng(n).normal(size=(n, 53)).astype(np.float32) for n in (8, 21, 5, 16)]
    found = reconstructions(Negative(), {}, motions, 8)
    for made, wanted in zip(found, motions, strict=True):
        np.testing.assert_array_equal(made, -wanted)


class Mirror:
    """A generator whose face is the emotion vector, scaled by the first sample of the clip; frame t adds t."""

    def apply(self, variables, audio, num_samples, emotion, identity, keys, *, num_codes, num_frames, method):
        assert audio.shape == (4, 640 * num_frames) and identity.shape == (4, 2) and len(keys) == 4
        assert num_frames == 32 and num_codes.shape == (4,)
        face = jnp.pad(emotion * audio[:, :1], ((0, 0), (0, 53 - emotion.shape[1])))
        return SimpleNamespace(motion=face[:, None] + jnp.arange(num_frames)[None, :, None])


def test_named_faces_are_means_over_the_frames_of_the_neutral_clips():
    """Six neutral clips of 3 to 8 frames with the scales 1 to 6, in two batches with others and padding between."""
    rows = [(0, scale, scale + 2) for scale in range(1, 7)]
    rows[2:2], rows[5:5] = [(HAPPY, 100, 20)], [(-1, 0, 0)]  # emotion, scale, frames
    batches = []
    for part in (rows[:4], rows[4:]):
        emotion, scale, frames = (np.array(column) for column in zip(*part, strict=True))
        audio = np.zeros((4, 640 * 40), np.float32)
        audio[:, 0] = scale
        valid = emotion >= 0
        batches.append(
            {
                "audio": audio,
                "emotion": emotion,
                "num_frames": frames,
                "num_samples": 640 * frames,
                "valid": valid,
            }
        )
    named = np.zeros((len(EMOTIONS), 3, 5), np.float32)
    named[0], named[HAPPY, 2], named[SAD, 0] = 9.0, np.eye(5)[1], np.eye(5)[3]
    faces = named_faces(Mirror(), {}, batches, np.eye(5, dtype=np.float32)[0], named, np.zeros(2, np.float32))
    scale = np.arange(1.0, 7.0)
    time = (scale + 1) / 2  # the mean of 0, 1, ... frames - 1
    np.testing.assert_allclose(faces.neutral, scale[:, None] * np.eye(50)[0] + time[:, None])
    np.testing.assert_allclose(faces.shown[:, HAPPY, 2], scale[:, None] * np.eye(50)[1] + time[:, None])
    np.testing.assert_allclose(faces.shown[:, SAD, 0], scale[:, None] * np.eye(50)[3] + time[:, None])
    assert np.isfinite(faces.shown).all(axis=-1).sum() == 12  # no others, and not neutral
    no_neutral = [{name: values[2:3] for name, values in batches[0].items()}]
    assert named_faces(Mirror(), {}, no_neutral, named[0, 0], named, np.zeros(2)) is None
