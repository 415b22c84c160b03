"""Batches of clips against single clips; padding to buckets against none; the published rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.assembly.build import init_dee, init_motion_prior, init_predictor, with_prior
from deeptalk_jax.assembly.model_dir import save_model
from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.animator import Animator
from deeptalk_jax.inference.api import DeepTalk
from deeptalk_jax.inference.batcher import BucketBatcher, rows_per_call, static_rows
from deeptalk_jax.inference.clip import Clip
from deeptalk_jax.inference.options import InferenceOptions
from deeptalk_jax.inference.pipeline import Pipeline, PipelineSettings, emotion_of
from deeptalk_jax.inference.settings import Sampling
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.generator import Generator
from deeptalk_jax.models.motion_prior import MotionPrior
from deeptalk_jax.models.predictor import IndexPredictor
from deeptalk_jax.models.speech.emotion2vec import Emotion2Vec
from deeptalk_jax.models.speech.wav2vec2 import Wav2Vec2

OURS = InferenceOptions(max_window_s=7.68)
OURS_UP_TO_2_S = InferenceOptions("first_10s", max_window_s=7.68)  # the toy's 10 s are 2
PUBLISHED = InferenceOptions("first_10s", "published", 12.8, "log_variance")
DRAWS = {"temperature_top": 1.0, "temperature_bottom": 1.0, "alpha": 1.0, "seed": 4}


def assert_close(one, other):
    np.testing.assert_array_equal(one.indices_top, other.indices_top)
    np.testing.assert_array_equal(one.indices_bottom, other.indices_bottom)
    np.testing.assert_allclose(one.frames(), other.frames(), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def sounds(babble):
    return [babble(seconds, seed) for seed, seconds in enumerate((1.9, 0.4, 3.3, 2.5, 2.1, 1.0))]


def test_many_clips_equal_each_alone(model, sounds):
    alone = [model.animate(sound, **DRAWS) for sound in sounds]
    for order, batch_size in (([0, 1, 2, 3, 4, 5], 3), ([3, 5, 0, 2, 4, 1], 2)):
        together = model.animate_many([sounds[i] for i in order], batch_size=batch_size, **DRAWS)
        for index, motion in zip(order, together, strict=True):
            assert_close(motion, alone[index])
    assert model.animate_many([]) == []


def test_samples_of_one_call_equal_their_seeds(model, sounds):
    """And whatever is batched with them, windows of a long clip too."""
    sampled = model.sample_many([sounds[0], sounds[4]], 3, batch_size=6, **DRAWS)
    for sound, samples in zip((sounds[0], sounds[4]), sampled, strict=True):
        for number, motion in enumerate(samples):
            assert_close(motion, model.animate(sound, **(DRAWS | {"seed": 4 + number})))
        assert len({motion.indices_bottom.tobytes() for motion in samples}) == 3
    nearly_still = {"temperature_bottom": 1.0, "top_p": 1e-6, "alpha": 1e-6}
    for motion in model.sample_many([sounds[0], sounds[4]], 3, batch_size=6, **nearly_still)[0]:
        assert_close(motion, model.animate(sounds[0]))


def test_a_bad_sound_among_good_ones(model, sounds):
    bad = np.full(9_000, np.nan, np.float32)
    results = dict(model.animate_each([sounds[0], bad, sounds[1]], batch_size=2))
    assert sorted(results) == [0, 1, 2]
    assert isinstance(results[1], UserError) and "9000 samples are not finite" in str(results[1])
    assert_close(results[0], model.animate(sounds[0]))
    with pytest.raises(UserError, match="not finite"):
        model.animate_many([sounds[0], bad])
    with pytest.raises(UserError, match="batch_size=0 must be 1 or above"):
        model.animate_many(sounds, batch_size=0)


def test_clips_come_as_their_batches_are_done(model, sounds):
    taken, seconds = [], []

    def endless():
        for number in range(100):
            taken.append(number)
            yield sounds[0]

    results = model.animate_each(endless(), batch_size=2, progress=seconds.append)
    assert sorted(index for index, _ in (next(results), next(results))) == [0, 1]
    assert len(taken) <= 4 and seconds == [2 * 1.92]


def test_batcher_fills_buckets_and_isolates_failures():
    calls = []

    def run(bucket, num_rows, rows):
        calls.append((bucket, num_rows, list(rows)))
        if "bad" in rows:
            raise MemoryError("too long")
        return [row.upper() for row in rows]

    batcher = BucketBatcher(run, batch_size=3)
    assert batcher.add(64, "a") == batcher.add(512, "b")[:0] == []
    assert calls == [(512, 1, ["b"])]  # a row of 20 s: batch_size 3 allows one
    assert batcher.add(64, "bad") == []
    done = batcher.add(64, "c")
    assert [row for row, _ in done] == ["a", "bad", "c"]
    assert (done[0][1], done[2][1]) == ("A", "C") and isinstance(done[1][1], MemoryError)
    assert batcher.flush() == []
    batcher.add(96, "d")
    assert batcher.flush() == [("d", "D")]
    assert [(rows_per_call(bucket, 8), static_rows(3, 8)) for bucket in (64, 256, 512, 1_200)] == [
        (8, 4),
        (8, 4),
        (4, 4),
        (1, 4),
    ]
    assert [static_rows(rows, 6) for rows in (1, 2, 3, 5, 6)] == [1, 2, 4, 6, 6]


# The published architecture at toy widths: group norm over time, wide positional convolutions, extra tokens.
_SMALL = {"dim": 12, "num_heads": 2, "mlp_dim": 10, "conv_channels": 6, "positional_groups": 2}


def _numbers(init, seed):
    generator = np.random.default_rng(seed)

    def leaf(path, shape):
        name = path[-1].key
        if name in ("scale", "variance", "gain"):
            return np.ones(shape.shape, np.float32)
        spread = 1.3 / np.sqrt(np.prod(shape.shape[:-1])) if name in ("kernel", "direction") else 0.2
        return generator.normal(0, spread, shape.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(init, jax.random.key(0)))


@pytest.fixture(scope="module")
def toy():
    """DEE that hears 2 s, generator, and the variables of both."""
    encoder = Emotion2Vec(num_prenet_layers=1, num_layers=1, positional_depth=2, num_extra_tokens=3, **_SMALL)
    dee = DEE(
        encoder,
        audio_layers=1,
        motion_layers=1,
        num_heads=2,
        mlp_dim=10,
        motion_dim=8,
        embedding_dim=6,
        max_speech_features=100,
        max_motion_frames=50,
    )
    speech = Wav2Vec2(num_layers=1, resample_to_hz=25.0, **_SMALL)
    predictor = IndexPredictor(speech, 3, 8, 10, 16, 1, 4, 16, 17)
    prior = MotionPrior(8, 12, 20, 4, 16, 17)
    generator = Generator(predictor, prior)
    variables = with_prior(
        _numbers(lambda key: init_predictor(generator, 6, key), 1),
        _numbers(lambda key: init_motion_prior(prior, key), 2),
    )
    return (dee, _numbers(lambda key: init_dee(dee, 9, key), 3)), (generator, variables)


@pytest.fixture(scope="module")
def animator_with(toy):
    """`options -> Animator`, always the same one: programs do not depend on the options."""
    animator = Animator(*toy, OURS)

    def choose(options):
        animator.options = options
        return animator

    return choose


def animated(animator, sounds):
    pipeline = Pipeline(animator, PipelineSettings(np.float32([0, 1, 0]), Sampling(batch_size=4)))
    clips = [(index, Clip(sound, animator.options)) for index, sound in enumerate(sounds)]
    done = dict(pipeline.run(clips))
    return [done[index][0] for index in range(len(sounds))]


@pytest.fixture(scope="module")
def unpadded(toy):
    """Emotion and motion that the modules give for `[1, s]` samples of whole top codes, without any bucket."""
    (dee, dee_variables), (generator, variables) = toy[0], (toy[1][0], jax.device_put(toy[1][1]))

    @jax.jit
    def emotion(audio):
        lengths = jnp.full(1, audio.shape[1])
        return dee.apply(dee_variables, audio, lengths, method=DEE.embed_audio)

    @jax.jit
    def motion(audio, emotion):
        num_frames = audio.shape[1] // 640
        return generator.apply(
            variables,
            audio,
            jnp.full(1, audio.shape[1]),
            emotion,
            jnp.float32([[0, 1, 0]]),
            jax.random.split(jax.random.key(0), 1),
            num_codes=jnp.full(1, num_frames // 4),
            num_frames=num_frames,
            method=Generator.sample,
        )

    return emotion, motion


@pytest.mark.parametrize(("options", "num_samples"), [(OURS_UP_TO_2_S, 38_400), (PUBLISHED, 37_000)])
def test_buckets_are_invisible_to_the_published_architecture(
    animator_with, unpadded, babble, options, num_samples
):
    sound = babble(num_samples / 16_000)
    (made,) = animated(animator_with(options), [sound])
    audio = np.pad(sound, (0, 38_400 - num_samples))[None]  # 60 frames of a bucket of 64
    embed, generate = unpadded
    expected = generate(audio, embed(audio).mean)
    num_frames = -(-num_samples // 640)
    assert made.motion.shape == (num_frames, 53)
    np.testing.assert_array_equal(made.indices_top, expected.indices_top[0, : -(-num_frames // 4)])
    np.testing.assert_array_equal(made.indices_bottom, expected.indices_bottom[0, : -(-num_frames // 2)])
    np.testing.assert_allclose(made.motion, expected.motion[0, :num_frames], rtol=1e-4, atol=1e-5)


def test_published_architecture_in_batches(animator_with, babble):
    sounds = [babble(seconds, seed) for seed, seconds in enumerate((1.2, 2.5, 2.2))]
    animator = animator_with(PUBLISHED)
    for sound, motion in zip(sounds, animated(animator, sounds), strict=True):
        (alone,) = animated(animator, [sound])
        np.testing.assert_array_equal(alone.indices_bottom, motion.indices_bottom)
        np.testing.assert_allclose(alone.motion, motion.motion, rtol=1e-4, atol=1e-5)


def test_emotion_from_the_start_of_a_clip(animator_with, unpadded, babble):
    sound = babble(2.4)  # of which the tower takes 2 s
    animator = animator_with(OURS_UP_TO_2_S)
    found = emotion_of(animator, Clip(sound, OURS_UP_TO_2_S), 1)
    embed, _ = unpadded
    whole = embed(sound[None])
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.log_variance, whole.log_variance, rtol=1e-4, atol=1e-5)
    # The encoder hears what follows those, too.
    changed = sound.copy()
    changed[36_000:] = sound[:2_400]
    other = emotion_of(animator, Clip(changed, OURS_UP_TO_2_S), 1)
    assert np.abs(other.mean - found.mean).max() > 1e-4
    # But no more than the longest window.
    (piece,) = animator.emotion_pieces(Clip(babble(30.0), OURS_UP_TO_2_S))
    assert piece[0] == 192 and piece[1].num_samples == 192 * 640


def test_pieces_and_windows_by_hand(animator_with, babble):
    clip = Clip(babble(12.0), OURS)
    animator = animator_with(OURS)
    pieces = [
        (bucket, piece.first_sample, piece.num_samples) for bucket, piece in animator.emotion_pieces(clip)
    ]
    assert pieces == [(50, 32_000 * number, 32_000) for number in range(6)]
    assert len(animator.emotion_pieces(Clip(babble(2.9), OURS))) == 1  # nine tenths of a second are left out
    assert animator.motion_windows(clip) == [(192, (0, 192)), (192, (64, 192)), (192, (128, 172))]
    # 300 frames and the four that the demo adds, which a longer window holds at once.
    assert animator_with(PUBLISHED).motion_windows(Clip(babble(12.0), PUBLISHED)) == [(320, (0, 304))]


def test_model_without_options_or_with_unknown_ones(model_parts, tmp_path):
    config = model_parts["deeptalk"].config.copy_and_resolve_references().unlock()
    config.inference.alpha_mode = "std"
    save_model(
        tmp_path, model_parts | {"deeptalk": model_parts["deeptalk"]._replace(config=config)}, head="x"
    )
    with pytest.raises(UserError, match=r"inference.alpha_mode='std' is not one of"):
        DeepTalk.load(tmp_path)
