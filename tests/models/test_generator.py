import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.models.generator import Generator
from deeptalk_jax.models.motion_prior import MotionPrior
from deeptalk_jax.models.predictor import IndexPredictor
from deeptalk_jax.models.speech.mel_encoder import MelEncoder

FRAMES = 12


@pytest.fixture(scope="module")
def generator():
    sizes = {"codebook_size_top": 6, "codebook_size_bottom": 7, "num_heads": 4}
    model = Generator(
        predictor=IndexPredictor(
            MelEncoder(dim=8, num_mels=10, num_layers=1, num_heads=2, rate_hz=25),
            num_identities=3,
            feature_dim=8,
            mlp_dim=12,
            predictor_dim=16,
            num_layers=1,
            **sizes,
        ),
        prior=MotionPrior(dim=8, mlp_dim=12, decoder_mlp_dim=20, **sizes),
    )
    audio = 0.1 * jax.random.normal(jax.random.key(0), (2, FRAMES * 640))
    lengths = jnp.array([FRAMES * 640, 8 * 640])
    emotion = jax.random.normal(jax.random.key(1), (2, 5))
    identity = jnp.eye(3)[:2]
    keys = {"params": jax.random.key(2), "sample": jax.random.key(3)}
    initialise = jax.jit(functools.partial(model.init, num_frames=FRAMES, tau=1.0, train=False))
    variables = initialise(keys, audio, lengths, emotion, identity)
    return model, variables, (audio, lengths, emotion, identity)


def sample(generator, inputs, keys, num_codes, num_frames=FRAMES, temperature=0.0):
    model, variables, _ = generator
    apply = jax.jit(
        functools.partial(
            model.apply,
            num_frames=num_frames,
            temperature_top=temperature,
            temperature_bottom=temperature,
            method=Generator.sample,
        )
    )
    return apply(variables, *inputs, keys, num_codes=jnp.asarray(num_codes))


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(7), 2)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_padded_clip_equals_the_clip_alone(generator, keys, temperature):
    audio, lengths, emotion, identity = generator[2]
    noisy = audio.at[1, 8 * 640 :].set(5.0)
    batch = sample(generator, (noisy, lengths, emotion, identity), keys, [3, 2], temperature=temperature)
    single = (audio[1:, : 8 * 640], lengths[1:], emotion[1:], identity[1:])
    alone = sample(generator, single, keys[1:], [2], num_frames=8, temperature=temperature)
    np.testing.assert_array_equal(batch.indices_top[1:, :2], alone.indices_top)
    np.testing.assert_array_equal(batch.indices_bottom[1:, :4], alone.indices_bottom)
    np.testing.assert_allclose(batch.motion[1:, :8], alone.motion, rtol=1e-4, atol=1e-5)


def test_emotion_and_identity_change_the_logits(generator, keys):
    audio, lengths, emotion, identity = generator[2]
    model, variables, _ = generator

    @jax.jit
    def logits(emotion, identity):
        inputs = (audio, lengths, emotion, identity, keys)
        output = model.apply(
            variables, *inputs, num_codes=jnp.array([3, 3]), num_frames=FRAMES, method=Generator.sample
        )
        return output.logits_top

    base, moved, other = (
        logits(emotion, identity),
        logits(-emotion, identity),
        logits(emotion, identity[::-1]),
    )
    assert float(jnp.abs(base - moved).max()) > 1e-3
    assert float(jnp.abs(base - other).max()) > 1e-3


def test_emotion_of_every_frame(generator):
    model, variables, (audio, lengths, emotion, identity) = generator

    @jax.jit
    def features(emotion):
        def call(module):
            return module.predictor.face_features(audio, lengths, emotion, identity, num_frames=FRAMES)

        return model.apply(variables, method=call)

    whole, other = features(emotion), features(-emotion)
    still = jnp.repeat(emotion[:, None], FRAMES, axis=1)
    np.testing.assert_allclose(features(still), whole, rtol=1e-5, atol=1e-6)
    changing = np.asarray(features(still.at[:, FRAMES // 2 :].multiply(-1.0)))
    # Frames hear one another, but most of all their own emotion.
    for half, near, far in ((slice(0, 6), whole, other), (slice(6, 12), other, whole)):
        distance = [np.abs(changing[:, half] - np.asarray(x)[:, half]).mean() for x in (near, far)]
        assert distance[0] < 0.5 * distance[1]
    with pytest.raises(ValueError, match="emotion has vectors for 5 frames, expected 12"):
        features(still[:, :5])


def test_training_gradient_reaches_both_predictors_through_the_frozen_prior(generator):
    model, variables, (audio, lengths, emotion, identity) = generator

    def loss(predictor):
        params = {**variables["params"], "predictor": predictor}
        output = model.apply(
            {**variables, "params": params},
            audio,
            lengths,
            emotion,
            identity,
            num_frames=FRAMES,
            tau=1.0,
            train=False,
            rngs={"sample": jax.random.key(4)},
        )
        return jnp.sum(jnp.square(output.motion))

    gradients = jax.jit(jax.grad(loss))(variables["params"]["predictor"])
    for part in ("predictor_top", "predictor_bottom", "style_map", "content_map"):
        assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradients[part])[-2:]), part


def test_rejects_odd_lengths_and_identities(generator, keys):
    audio, lengths, emotion, identity = generator[2]
    with pytest.raises(ValueError, match="num_frames=10 is no multiple of 4"):
        sample(generator, (audio, lengths, emotion, identity), keys, [3, 3], num_frames=10)
    with pytest.raises(ValueError, match="identity has 2 entries, expected 3"):
        sample(generator, (audio, lengths, emotion, identity[:, :2]), keys, [3, 3])
