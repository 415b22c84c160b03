"""Emotions given to a tiny untrained model: by name, as a Gaussian, from a motion, and as a track."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from deeptalk_jax.assembly.build import build_dee, build_fer
from deeptalk_jax.assembly.model_dir import Part, save_model
from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.animator import WindowMotion
from deeptalk_jax.inference.api import DeepTalk
from deeptalk_jax.inference.motion import Motion
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.fer import FER
from deeptalk_jax.types import Gaussian


def assert_same(a, b):
    np.testing.assert_array_equal(a.indices_bottom, b.indices_bottom)
    np.testing.assert_array_equal(a.frames(), b.frames())


@pytest.fixture(scope="module")
def clip(babble):
    return babble(1.9)


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(3).normal(0, 0.5, (61, 53)).astype(np.float32)


def test_an_emotion_is_the_same_by_name_as_a_gaussian_and_from_sound(model, model_parts, clip, babble):
    happy, sad = model.emotion("happy@3"), model.emotion("sad@3")
    np.testing.assert_allclose(happy.mean, model_parts["dee"].statistics["mean"][1, 2], atol=1e-6)
    assert_same(model.animate(clip, emotion="happy@3"), model.animate(clip, emotion=happy))
    assert (
        np.abs(model.animate(clip, emotion=happy).frames() - model.animate(clip, emotion=sad).frames()).max()
        > 1e-3
    )
    other = babble(1.4, seed=3)
    spoken = model.emotion(audio=other)
    assert spoken.mean.shape == spoken.log_variance.shape == (6,) and type(spoken.mean) is np.ndarray
    assert_same(model.animate(clip, emotion=spoken), model.animate(clip, emotion_audio=other))


def test_alpha_draws_around_a_given_emotion(model, clip):
    mean = model.animate(clip, emotion="happy")
    assert_same(model.animate(clip, emotion="happy", seed=5), mean)
    drawn = [model.animate(clip, emotion="happy", alpha=3.0, seed=seed) for seed in range(4)]
    assert_same(model.animate(clip, emotion="happy", alpha=3.0, seed=2), drawn[2])
    assert len({motion.indices_bottom.tobytes() for motion in drawn}) > 1
    # A constant track draws the same emotion, because all its frames share one noise vector.
    still = model.animate(clip, emotion_track=[(0.0, "happy")], alpha=3.0, seed=2)
    np.testing.assert_array_equal(still.indices_bottom, drawn[2].indices_bottom)


def test_a_motion_is_embedded_by_fer_and_the_motion_tower(model, model_parts, frames, tmp_path):
    fer, dee = (model_parts[name] for name in ("fer", "dee"))

    @jax.jit
    def embed(frames):
        features = build_fer(fer.config).apply(fer.variables, frames[None], method=FER.features)
        lengths = np.int32([len(frames)])
        return build_dee(dee.config).apply(dee.variables, features, lengths, method=DEE.embed_motion)

    wanted = embed(frames)
    found = model.emotion(motion=frames)
    np.testing.assert_allclose(found.mean, wanted.mean[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.log_variance, wanted.log_variance[0], rtol=1e-4, atol=1e-5)

    motion = Motion(
        frames[:, :50], frames[:, 50:], np.zeros(16, int), np.zeros(31, int), np.zeros(1), lambda: model.head
    )
    motion.save(tmp_path / "clip.npz")
    for source in (motion, tmp_path / "clip.npz", str(tmp_path / "clip.npz")):
        for array, expected in zip(model.emotion(motion=source), found, strict=True):
            np.testing.assert_array_equal(array, expected)


def test_a_long_motion_pools_windows_of_10_s(model, frames):
    # Two whole windows, and a remainder under a second, which is dropped.
    long = np.resize(frames, (520, 53))
    first, second = model.emotion(motion=long[:250]), model.emotion(motion=long[250:500])
    precision = np.exp(-first.log_variance) / 2 + np.exp(-second.log_variance) / 2
    found = model.emotion(motion=long)
    np.testing.assert_allclose(np.exp(-found.log_variance), precision, rtol=1e-4)


def test_a_constant_track_equals_the_emotion(model, clip):
    one = model.animate(clip, emotion="angry@2")
    track = model.animate(clip, emotion_track=[(1.0, "angry@2"), (30.0, model.emotion("angry@2"))])
    np.testing.assert_array_equal(track.indices_top, one.indices_top)
    np.testing.assert_allclose(track.frames(), one.frames(), rtol=1e-4, atol=1e-5)


def test_each_window_takes_its_own_part_of_the_track(model, babble, monkeypatch, tmp_path):
    (tmp_path / "track.csv").write_text("seconds,happy@3,sad@3\n0,1,0\n10,0,1\n20,0.2,0.2\n")
    track = model.emotion(track=tmp_path / "track.csv")
    seen = {}

    def sample(bucket, num_rows, rows, identity, sampling):
        seen.update({row.window.first_frame: row.emotions[0] for row in rows})
        codes = np.zeros(bucket, np.int32)
        motion = WindowMotion(np.zeros((bucket, 53), np.float32), codes[::4], codes[::2])
        return [WindowMotion(*(array[None] for array in motion))] * len(rows)

    monkeypatch.setattr(model._animator, "sample", sample)
    model.animate(babble(25.0), emotion=track)
    assert {first: len(emotion) for first, emotion in seen.items()} == {0: 512, 384: 256}
    for first, emotion in seen.items():
        wanted = track.frames(first, len(emotion)).mean
        np.testing.assert_allclose(emotion, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen[0][384:], seen[384][:128], rtol=1e-5, atol=1e-6)


def test_a_changing_track_changes_the_motion(model, clip):
    first, last = (model.animate(clip, emotion=emotion).frames() for emotion in ("happy@3", "sad@3"))
    moving = model.animate(clip, emotion_track=[(0.9, "happy@3"), (1.0, "sad@3")]).frames()
    assert min(np.abs(moving - first).max(), np.abs(moving - last).max()) > 1e-3


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"emotion": "happy", "emotion_audio": "a.wav"}, "emotion and emotion_audio exclude one another"),
        ({"emotion_motion": "a.npz", "emotion_track": "a.csv"}, "emotion_motion and emotion_track exclude"),
        ({"emotion": "glee"}, "unknown name 'glee'; known: neutral, happy"),
        (
            {"emotion": Gaussian(np.zeros(3), np.zeros(3))},
            r"finite mean and log_variance \[6\], got shapes \[\(3,\)",
        ),
        ({"emotion": Gaussian(np.full(6, np.nan), np.zeros(6))}, "finite mean and log_variance"),
        (
            {"emotion": 3},
            "expected an emotion as text, as a mapping of names to weights or as a Gaussian, got int",
        ),
        ({"emotion_track": []}, "the emotion track has no rows"),
        ({"emotion_track": [(0.0, "glee")]}, "unknown name 'glee'"),
        ({"emotion_track": [(0.0, Gaussian(np.zeros(3), np.zeros(3)))]}, "finite mean and log_variance"),
        ({"emotion_motion": "none.npz"}, "none.npz: no such file"),
        (
            {"emotion_motion": np.zeros((4, 56))},
            r"expected frames \[t, 53\] of floats, got float64 of shape \(4",
        ),
        ({"emotion_motion": np.zeros((0, 53))}, r"got float64 of shape \(0, 53\)"),
        ({"emotion_motion": np.zeros((4, 53), int)}, r"got int64 of shape \(4, 53\)"),
        (
            {"emotion_motion": np.full((4, 53), np.inf)},
            r"motion: frame 0, expression\[0\]: inf is not finite",
        ),
    ],
)
def test_unusable_emotion_sources_are_rejected(model, clip, sources, message):
    with pytest.raises(UserError, match=message):
        model.animate(clip, **sources)


def test_emotion_needs_exactly_one_source(model):
    with pytest.raises(
        UserError, match="expected an emotion as blend, audio, motion or track; none is given"
    ):
        model.emotion()
    with pytest.raises(UserError, match="exclude one another"):
        model.emotion("happy", motion=np.zeros((4, 53)))


def test_files_that_are_not_motions_are_rejected(model, frames, tmp_path):
    whole = {"expression": frames[:, :50], "jaw_pose": frames[:, 50:], "fps": np.int32(25)}
    cases = [
        ({"fps": np.int32(0)}, "fps is 0, expected one number of frames per second"),
        (
            {"jaw_pose": frames[:-1, 50:]},
            r"expression 61 frames \(2.44 s\) and jaw_pose 60 frames \(2.40 s\) at 25 frames per second",
        ),
        (
            {"expression": frames[:, :49]},
            r"expression has shape \(61, 49\), expected rows of 50 or 100 numbers",
        ),
        ({"expression": np.array([{}], object)}, "not a motion file of infer.py"),
    ]
    for changes, message in cases:
        np.savez(tmp_path / "a.npz", **(whole | changes))
        with pytest.raises(UserError, match=f"a.npz: .*{message}"):
            model.emotion(motion=tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", vertices=frames)
    with pytest.raises(UserError, match="has no array 'expression', nor exp, expr"):
        model.emotion(motion=tmp_path / "a.npz")
    for content in (b"", b"text\n", (tmp_path / "a.npz").read_bytes()[:300]):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"a.npz: not a motion file of infer.py"):
            model.emotion(motion=tmp_path / "a.npz")


def test_a_model_without_centroids_or_fer_names_what_is_missing(model_parts, tmp_path, clip, frames):
    dee = model_parts["dee"]
    parts = {name: part for name, part in model_parts.items() if name != "fer"}
    save_model(tmp_path, parts | {"dee": Part(dee.config, dee.variables)}, head="procedural")
    model = DeepTalk.load(tmp_path)
    with pytest.raises(UserError) as raised:
        model.animate(clip, emotion="happy")
    assert str(raised.value) == (
        f"{tmp_path}: holds no emotion centroids; make them from training data with "
        f"python -m deeptalk_jax.tools.emotion_centroids --model={tmp_path} --data_dir=DIR"
    )
    with pytest.raises(UserError, match="holds no part 'fer'"):
        model.emotion(motion=frames)
    # A track of Gaussians needs neither centroids nor FER.
    spoken = model.emotion(audio=clip)
    assert len(model.animate(clip, emotion_track=[(0.0, spoken)])) == 48


def test_the_examples_of_the_documentation_can_be_read(model, tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "emotion_control.md").read_text()
    for block in re.findall(r"^```csv\n(.*?)^```", text, re.M | re.S):
        (tmp_path / "track.csv").write_text(block)
        track = model.emotion(track=tmp_path / "track.csv")
        assert np.isfinite(track.frames(0, 100).mean).all()
    blends = re.findall(r'(?:--emotion=|emotion="|\.emotion\(")([^"`\s]+)', text)
    assert {"happy:0.8,surprised:0.2", "happy@3"} <= set(blends)
    for blend in blends:
        assert model.emotion(blend).mean.shape == (6,)


def test_a_mapping_gives_the_motion_of_the_blend(model, clip):
    wanted = model.animate(clip, emotion="happy:0.8,surprised:0.2")
    found = model.animate(clip, emotion={"Joy": 0.8, "surprise": 0.2})
    assert found == wanted and found.provenance.emotion == "Joy:0.8,surprise:0.2"
    assert model.animate(clip, emotion_track=[(0.0, {"angry@2": 1.0})]) == model.animate(
        clip, emotion_track=[(0.0, "angry@2")]
    )
    np.testing.assert_array_equal(model.emotion({"sad": 1.0}).mean, model.emotion("sad").mean)
