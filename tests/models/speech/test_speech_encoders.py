"""Behaviour that both pretrained encoders share, at tiny widths: padding, lengths, gradients and dropout."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.models.attention_bias import alibi_slopes
from deeptalk_jax.models.speech.emotion2vec import Emotion2Vec, scaled_alibi
from deeptalk_jax.models.speech.wav2vec2 import Wav2Vec2

LENGTHS = np.array([5003, 3001], np.int32)


def count_params(model):
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 800)))
    return sum(leaf.size for leaf in jax.tree.leaves(variables))


def test_parameter_counts_are_the_published_ones():
    # The published files also contain a masking vector (768) and a decoder for pre-training (619,776).
    assert count_params(Wav2Vec2()) == 94_371_712 - 768
    assert count_params(Emotion2Vec()) == 93_790_988 - 619_776
    large = Wav2Vec2(
        num_layers=24,
        dim=1024,
        num_heads=16,
        mlp_dim=4096,
        conv_norm="layer",
        conv_bias=True,
        stable_layer_norm=True,
    )
    assert count_params(large) == 315_438_720 - 1024  # facebook/wav2vec2-large-960h-lv60


@pytest.mark.parametrize("resample_to_hz", [None, 25.0])
def test_padding_does_not_change_a_clip(encoder, waveform, resample_to_hz):
    if resample_to_hz:
        if not isinstance(encoder.model, Wav2Vec2):
            pytest.skip("emotion2vec stays at 50 Hz")
        encoder = encoder.clone(resample_to_hz=resample_to_hz)
    garbage = np.where(np.arange(5003) < LENGTHS[:, None], waveform, 70.0).astype(np.float32)
    together = encoder(garbage, LENGTHS)
    alone = encoder(waveform[1:, :3001])
    frames = alone.values.shape[1]
    assert np.all(alone.mask) and together.mask[1].sum() == frames
    np.testing.assert_allclose(together.values[1, :frames], alone.values[0], rtol=1e-4, atol=1e-5)
    assert not np.any(together.values[1, frames:])


def test_output_has_the_computed_length_and_rate(encoder, waveform):
    model, variables = encoder
    features = jax.eval_shape(model.apply, variables, waveform)
    assert model.rate_hz == 50 and model.feature_dim == 12
    # Three convolutions without padding: 5003 samples -> 999 -> 125 -> 16 features.
    assert features.values.shape == (2, 16, model.feature_dim)
    assert features.mask.shape == (2, 16) and features.mask.dtype == bool


@pytest.mark.parametrize("num_frames", [4, 11])
def test_output_is_cut_or_padded_to_num_frames(make_encoder, waveform, num_frames):
    encoder = make_encoder("wav2vec2").clone(resample_to_hz=25.0)
    assert encoder.model.rate_hz == 25
    natural = encoder(waveform, LENGTHS)
    features = encoder(waveform, LENGTHS, num_frames=num_frames)
    assert features.values.shape == (2, num_frames, 12)
    np.testing.assert_array_equal(natural.mask.sum(1), [8, 5])
    np.testing.assert_array_equal(features.mask.sum(1), np.minimum([8, 5], num_frames))
    if num_frames > 8:  # no frame is cut
        np.testing.assert_allclose(features.values[:, :8], natural.values, rtol=1e-4, atol=1e-5)
        assert not np.any(features.values[:, 8:])


def test_emotion2vec_cuts_frames_after_encoding_the_whole_clip(make_encoder, waveform):
    encoder = make_encoder("emotion2vec")
    whole = encoder(waveform)
    cut = encoder(waveform, num_frames=4)
    np.testing.assert_allclose(cut.values, whole.values[:, :4], rtol=1e-5, atol=1e-6)
    longer = jax.eval_shape(partial(encoder.model.apply, num_frames=20), encoder.variables, waveform)
    assert longer.values.shape == (2, 20, 12)


def test_stretch_spreads_every_clip_over_all_frames(make_encoder, waveform):
    encoder = make_encoder("wav2vec2").clone(resample_to_hz=25.0)
    assert np.all(encoder(waveform, LENGTHS, num_frames=11, stretch=True).mask)
    with pytest.raises(ValueError, match="stretch=True needs num_frames"):
        encoder(waveform, stretch=True)


def test_very_short_clips_are_padded_with_zeros(encoder, waveform):
    in_batch = encoder(waveform, np.array([1, 99]))
    np.testing.assert_array_equal(in_batch.mask.sum(1), [1, 1])
    short = encoder(waveform[1:, :99])
    assert short.values.shape == (1, 1, 12) and np.all(short.mask)
    np.testing.assert_allclose(in_batch.values[1, 0], short.values[0, 0], rtol=1e-4, atol=1e-5)
    assert np.all(np.isfinite(in_batch.values))


def test_gradient_reaches_every_parameter_and_the_waveform(encoder, waveform, jit):
    model, variables = encoder
    weights = np.random.default_rng(0).standard_normal((2, 16, 12)).astype(np.float32)

    @jit
    @partial(jax.grad, argnums=(0, 1))
    def gradients(variables, waveform, num_samples):
        return jnp.sum(weights * model.apply(variables, waveform, num_samples).values)

    gradient, audio_gradient = gradients(variables, waveform, LENGTHS)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        if "key']['bias" in name:  # softmax does not change if a constant is added to all scores
            continue
        assert np.any(np.abs(leaf) > 0), name
    assert np.any(audio_gradient[1, :3001]) and not np.any(audio_gradient[1, 3001:])
    # Batches can be filled up with clips of length 0, whose gradients must be finite.
    gradient, _ = gradients(variables, waveform, np.array([0, 5003], np.int32))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_negative_alibi_scales_count_as_zero_and_have_no_gradient():
    scale = jnp.array([-0.5, 2.0])
    bias, gradient = scaled_alibi(scale, 3, 1), jax.grad(lambda s: jnp.sum(scaled_alibi(s, 3, 1)))(scale)
    assert not np.any(bias[0]) and gradient[0] == 0 and gradient[1] < 0


@pytest.mark.parametrize("kind", ["wav2vec2", "emotion2vec"])
def test_dropout_is_applied_in_training_only(make_encoder, waveform, kind):
    encoder = make_encoder(kind)
    rngs = {"dropout": jax.random.key(1)}
    still = encoder(waveform)
    moved = encoder(waveform, rngs=rngs, train=True)
    assert np.any(np.abs(moved.values - still.values) > 1e-3)
    np.testing.assert_array_equal(still.values, encoder(waveform, rngs=rngs).values)


def test_layer_drop_skips_layers(make_encoder, waveform):
    encoder = make_encoder("wav2vec2")
    rates = {name: 0.0 for name in encoder.model.__dataclass_fields__ if name.endswith("dropout_rate")}
    dropped = encoder.clone(layer_drop_rate=1.0, **rates)
    skipped = dropped(waveform, train=True, rngs={"dropout": jax.random.key(0)})
    without = encoder.clone(num_layers=0)(waveform)
    np.testing.assert_allclose(skipped.values, without.values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["wav2vec2", "emotion2vec"])
def test_bfloat16_output_is_close_to_float32(make_encoder, waveform, kind):
    encoder = make_encoder(kind)
    exact = encoder(waveform, LENGTHS)
    rough = encoder.clone(dtype=jnp.bfloat16)(waveform, LENGTHS)
    assert rough.values.dtype == jnp.bfloat16
    # The tolerance is for about twenty operations with an 8-bit mantissa on values of order one.
    difference = rough.values.astype(np.float32) - exact.values
    assert np.sqrt(np.mean(difference**2)) < 0.05


def test_scaled_alibi_equals_the_published_bias(goldens):
    published = goldens("masks")
    published.check("slopes_h8", np.array(alibi_slopes(8)))
    published.check("slopes_h12", np.array(alibi_slopes(12)))
    bias = scaled_alibi(jnp.asarray(published["emotion2vec_alibi_scale"]), 16, 10)
    published.check("emotion2vec_bias_scaled_padded_T16", bias)
    published.check("emotion2vec_alibi_h12_T16", scaled_alibi(jnp.ones(12), 16, 0))


def test_groups_that_do_not_divide_the_width_are_rejected(waveform):
    with pytest.raises(ConfigError, match="num_groups=5 does not divide the feature size 12"):
        model = Wav2Vec2(dim=12, num_heads=3, positional_groups=5)
        jax.eval_shape(model.init, jax.random.key(0), waveform)
