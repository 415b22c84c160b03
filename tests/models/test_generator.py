"""Generator: padding, batches over devices, conditions, gradients and invalid inputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

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
    initialise = jax.jit(functools.partial(model.init, num_frames=FRAMES, tau=1.0))
    variables = initialise(keys, audio, lengths, emotion, identity)
    return model, variables, (audio, lengths, emotion, identity)


@pytest.fixture(scope="module")
def sample(generator):
    """`Generator.sample`, compiled once per shape."""
    model, variables, _ = generator
    apply = jax.jit(functools.partial(model.apply, method=Generator.sample), static_argnames="num_frames")

    def call(inputs, keys, num_codes, num_frames=FRAMES, temperature=0.0):
        temperatures = {"temperature_top": temperature, "temperature_bottom": temperature}
        return apply(
            variables, *inputs, keys, num_codes=jnp.asarray(num_codes), num_frames=num_frames, **temperatures
        )

    return call


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(7), 2)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_padding_does_not_change_a_clip(generator, sample, keys, temperature):
    audio, lengths, emotion, identity = generator[2]
    noisy = audio.at[1, 8 * 640 :].set(5.0)
    batch = sample((noisy, lengths, emotion, identity), keys, [3, 2], temperature=temperature)
    single = (audio[1:, : 8 * 640], lengths[1:], emotion[1:], identity[1:])
    alone = sample(single, keys[1:], [2], num_frames=8, temperature=temperature)
    np.testing.assert_array_equal(batch.indices_top[1:, :2], alone.indices_top)
    np.testing.assert_array_equal(batch.indices_bottom[1:, :4], alone.indices_bottom)
    np.testing.assert_allclose(batch.motion[1:, :8], alone.motion, rtol=1e-4, atol=1e-5)


def test_samples_do_not_depend_on_batch_and_devices(generator, sample):
    """Compares eight rows on eight devices with two of them, in another order, on one device."""
    audio, lengths, emotion, identity = (jnp.repeat(array, 4, axis=0) for array in generator[2])
    keys = jax.random.split(jax.random.key(9), 8)
    rows = (audio, lengths, emotion, identity)
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    spread = jax.device_put((rows, keys, jnp.array([3] * 4 + [2] * 4)), sharding)
    many = sample(*spread, temperature=1.0)
    assert len(many.motion.sharding.device_set) == 8
    order = np.array([6, 1])
    few = sample([row[order] for row in rows], keys[order], [2, 3], temperature=1.0)
    many = jax.device_get(many)
    for row, number in enumerate(order):
        num_codes = 3 if number < 4 else 2
        for name, count in (("indices_top", num_codes), ("indices_bottom", 2 * num_codes)):
            chosen = [np.asarray(getattr(output, name)) for output in (few, many)]
            np.testing.assert_array_equal(chosen[0][row, :count], chosen[1][number, :count])
    assert (
        len({indices.tobytes() for indices in many.indices_bottom[:4]}) == 4
    )  # every key gives another sample


def test_emotion_and_identity_change_the_logits(generator, sample, keys):
    audio, lengths, emotion, identity = generator[2]

    def logits(emotion, identity):
        return sample((audio, lengths, emotion, identity), keys, [3, 3]).logits_top

    base, moved, other = (
        logits(emotion, identity),
        logits(-emotion, identity),
        logits(emotion, identity[::-1]),
    )
    assert float(jnp.abs(base - moved).max()) > 1e-3
    assert float(jnp.abs(base - other).max()) > 1e-3


def test_emotion_can_change_from_frame_to_frame(generator):
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
    # Frames depend on each other by attention, but most on their own emotion.
    for half, near, far in ((slice(0, 6), whole, other), (slice(6, 12), other, whole)):
        distance = [np.abs(changing[:, half] - np.asarray(x)[:, half]).mean() for x in (near, far)]
        assert distance[0] < 0.5 * distance[1]
    with pytest.raises(ValueError, match="emotion has vectors for 5 frames, expected 12"):
        features(still[:, :5])


def test_gradient_reaches_both_predictors_through_the_frozen_prior(generator):
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
            rngs={"sample": jax.random.key(4)},
        )
        return jnp.sum(jnp.square(output.motion))

    gradients = jax.jit(jax.grad(loss))(variables["params"]["predictor"])
    for part in ("predictor_top", "predictor_bottom", "style_map", "content_map"):
        assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradients[part])[-2:]), part


def test_wrong_lengths_and_identities_are_rejected(generator, sample, keys):
    audio, lengths, emotion, identity = generator[2]
    with pytest.raises(ValueError, match="num_frames=10: expected a multiple of 4"):
        sample((audio, lengths, emotion, identity), keys, [3, 3], num_frames=10)
    with pytest.raises(ValueError, match="identity has 2 entries, expected 3"):
        sample((audio, lengths, emotion, identity[:, :2]), keys, [3, 3])
