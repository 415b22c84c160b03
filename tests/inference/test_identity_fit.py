"""Fitting an identity on a tiny untrained model."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.errors import UserError
from deeptalk_jax.head.lbs import motion_vertices
from deeptalk_jax.head.load import load_head
from deeptalk_jax.inference.identity_fit import Recording, fit_identity, held_out_errors, split_recording
from deeptalk_jax.inference.trained_generator import load_generator
from deeptalk_jax.models.dee import DEE


def recording(num_frames, num_samples):
    return Recording(np.zeros(num_samples, np.float32), np.zeros((num_frames, 53), np.float32))


def test_the_last_fifth_is_held_out():
    whole = recording(10 * 8 + 7, 640 * (10 * 8 + 6) + 1)
    whole = Recording(np.arange(len(whole.waveform)), np.arange(len(whole.motion))[:, None])
    fitted, held_out = split_recording(whole, 8)
    np.testing.assert_array_equal(fitted.motion[:, 0], np.arange(64))
    np.testing.assert_array_equal(fitted.waveform, np.arange(64 * 640))
    np.testing.assert_array_equal(held_out.motion[:, 0], np.arange(64, 80))
    np.testing.assert_array_equal(held_out.waveform, np.arange(64 * 640, 80 * 640))


@pytest.mark.parametrize(
    ("num_frames", "num_samples", "message"),
    [
        (43, 640 * 40, r"1.72 s of motion \(43 frames\) do not match 1.60 s of sound"),
        (39, 640 * 40, "39 frames are too few to fit an identity; expected 40 or more"),
    ],
)
def test_recordings_of_unequal_length_or_too_short_are_rejected(num_frames, num_samples, message):
    with pytest.raises(UserError, match=message):
        split_recording(recording(num_frames, num_samples), 8)


def mean_identity_loss(parts, audio, motion):
    """Computes the squared coordinate errors over explicit vertices, with the modules that training runs."""
    head = load_head("procedural")

    @jax.jit
    def loss(variables, dee_variables):
        lengths = jnp.full(len(audio), audio.shape[1])
        emotion = parts.dee.apply(dee_variables, audio, lengths, method=DEE.embed_audio).mean
        identity = jnp.tile(jnp.array([[1, 1, 1, 0, 0]]) / 3, (len(audio), 1))

        def call(module):
            face = module.predictor.face_features(
                audio, lengths, emotion, identity, num_frames=motion.shape[1]
            )
            codes_top = jax.nn.softmax(module.predictor.logits_top(face)) @ codebooks[0]
            logits = module.predictor.logits_bottom(face, module.prior.decode_top(codes_top))
            return module.prior.decode(codes_top, jax.nn.softmax(logits) @ codebooks[1])

        codebooks = [
            variables["codebook"]["prior"][f"quantizer_{level}"]["embedding"] for level in ("top", "bottom")
        ]
        made = parts.model.apply(variables, method=call)
        squares = 1e6 * jnp.square(motion_vertices(head, made) - motion_vertices(head, motion))
        return jnp.mean(squares) + 0.5 * jnp.mean(squares[:, :, head.masks["lips"]])

    return float(loss(parts.variables, parts.dee_variables))


def test_fitting_changes_only_the_identity_and_reduces_the_loss(model_directory, babble):
    parts = load_generator(model_directory)
    sound = babble(6.5)
    motion = np.random.default_rng(1).normal(0, 1.0, (162, 53)).astype(np.float32)
    before = jax.tree.map(np.copy, parts.variables)
    recordings = [Recording(sound[: 40 * 640], motion[:40]), Recording(sound, motion)]
    fitted = fit_identity(parts, recordings, num_steps=30)
    jax.tree.map(np.testing.assert_array_equal, parts.variables, before)
    # The first recording has one window, the second has five.
    audio = np.concatenate([sound[: 32 * 640], sound[: 160 * 640]]).reshape(6, -1)
    windows = np.concatenate([motion[:32], motion[:160]]).reshape(6, 32, 53)
    learnt = np.arange(6) != 4
    expected = mean_identity_loss(parts, audio[learnt], windows[learnt])
    np.testing.assert_allclose(fitted.losses[0], expected, rtol=1e-4)
    assert fitted.losses[-1] < fitted.losses[0] and np.isfinite(fitted.losses).all()
    # The chosen identity has the least error in the windows set aside.
    best = int(np.argmin(fitted.checks))
    assert best > 0 and fitted.checks.shape == (30,)
    shorter = fit_identity(parts, recordings, num_steps=best + 1)
    np.testing.assert_allclose(shorter.vector, fitted.vector, atol=1e-5)
    assert fitted.vector.shape == (5,) and np.abs(fitted.vector[:3] - 1 / 3).max() > 0.05
    np.testing.assert_array_equal(fitted.vector[3:], 0.0)  # entries of no training identity


def test_the_identity_of_the_true_motion_has_no_error(model, babble):
    sound = babble(1.9)
    own = Recording(sound, model.animate(sound, identity=1).frames())
    errors = held_out_errors(model, [own], 1)
    assert errors["fitted_identity"] == pytest.approx({"lip_error_mm": 0, "vertex_error_mm": 0}, abs=1e-3)
    assert errors["mean_identity"]["vertex_error_mm"] > 0.01


def test_recordings_shorter_than_a_window_are_rejected(model_directory):
    with pytest.raises(UserError, match=re.escape("no recording has the 32 frames of a window")):
        fit_identity(load_generator(model_directory), [recording(31, 640 * 40)])
