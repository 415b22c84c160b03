"""Clips in batches against single clips, padded buckets against none, and the rules of the published demo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.assembly.build import init_dee, init_motion_prior, init_predictor, with_prior
from deeptalk_jax.assembly.model_dir import save_model
from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.animator import Animator
from deeptalk_jax.inference.api import DeepTalk
from deeptalk_jax.inference.clip import Clip
from deeptalk_jax.inference.options import InferenceOptions, Sampling
from deeptalk_jax.inference.pipeline import (
    Request,
    animate_clips,
    embed_clips,
    rows_per_call,
    run_in_batches,
    static_rows,
)
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.generator import Generator
from deeptalk_jax.models.motion_prior import MotionPrior
from deeptalk_jax.models.predictor import IndexPredictor
from deeptalk_jax.models.speech.emotion2vec import Emotion2Vec
from deeptalk_jax.models.speech.wav2vec2 import Wav2Vec2
from deeptalk_jax.types import Gaussian

OURS = InferenceOptions(max_window_s=7.68)
OURS_UP_TO_2_S = InferenceOptions("first_10s", max_window_s=7.68)  # the toy model embeds 2 s instead of 10 s
PUBLISHED = InferenceOptions("first_10s", "published", 12.8, "log_variance")
DRAWS = {"temperature_top": 1.0, "temperature_bottom": 1.0, "alpha": 1.0, "seed": 4}


def assert_close(one, other):
    np.testing.assert_array_equal(one.indices_top, other.indices_top)
    np.testing.assert_array_equal(one.indices_bottom, other.indices_bottom)
    np.testing.assert_allclose(one.frames(), other.frames(), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def sounds(babble):
    return [babble(seconds, seed) for seed, seconds in enumerate((1.9, 0.4, 3.3, 2.5, 2.1, 1.0))]


def test_a_motion_is_the_same_alone_and_in_any_list(model, sounds):
    alone = [model.animate(sound, **DRAWS) for sound in sounds]
    for order, batch_size in (([0, 1, 2, 3, 4, 5], 3), ([3, 5, 0, 2, 4, 1], 2)):
        together = model.animate([sounds[i] for i in order], batch_size=batch_size, **DRAWS)
        for index, motion in zip(order, together, strict=True):
            assert_close(motion, alone[index])
    assert model.animate([]) == []


def test_sample_i_is_the_motion_of_seed_plus_i(model, sounds):
    sampled = model.animate([sounds[0], sounds[4]], num_samples=3, batch_size=6, **DRAWS)
    for sound, samples in zip((sounds[0], sounds[4]), sampled, strict=True):
        for number, motion in enumerate(samples):
            assert_close(motion, model.animate(sound, **(DRAWS | {"seed": 4 + number})))
        assert len({motion.indices_bottom.tobytes() for motion in samples}) == 3
    nearly_still = {"temperature_bottom": 1.0, "top_p": 1e-6, "alpha": 1e-6}
    for motion in model.animate(sounds[0], num_samples=3, batch_size=6, **nearly_still):
        assert_close(motion, model.animate(sounds[0]))


def test_a_bad_sound_does_not_affect_the_others(model, sounds):
    bad = np.full(9_000, np.nan, np.float32)
    results = dict(model.animate_each([sounds[0], bad, sounds[1]], batch_size=2))
    assert sorted(results) == [0, 1, 2]
    assert isinstance(results[1], UserError) and "9000 samples are not finite" in str(results[1])
    assert_close(results[0], model.animate(sounds[0]))
    with pytest.raises(UserError, match="not finite"):
        model.animate([sounds[0], bad])


def test_results_come_in_groups_of_bounded_size(model, sounds):
    taken, seconds = [], []

    def endless():
        for number in range(100):
            taken.append(number)
            yield sounds[0]

    results = model.animate_each(endless(), batch_size=2, progress=seconds.append)
    assert not taken
    assert sorted(index for index, _ in (next(results), next(results))) == [0, 1]
    # A group is four batches of clips; its first batch of motions is done.
    assert len(taken) == 8 and seconds == [2 * 1.92]


def test_a_group_also_ends_at_a_bounded_length_of_sound(model, babble):
    taken = []

    def endless():
        for number in range(100):
            taken.append(number)
            yield babble(25.0)

    next(model.animate_each(endless(), batch_size=1))
    assert len(taken) == 2  # 50 s, more than four batches of 10.24 s


def test_rows_run_in_batches_of_their_bucket_and_a_bad_row_fails_alone():
    calls = []

    def run(bucket, num_rows, rows):
        calls.append((bucket, num_rows, list(rows)))
        if "bad" in rows:
            raise MemoryError("too long")
        return [row.upper() for row in rows]

    rows = [(64, "a"), (512, "b"), (64, "bad"), (512, "c"), (64, "d"), (64, "e")]
    done = list(run_in_batches(run, rows, batch_size=3))
    assert calls == [
        (64, 3, ["a", "bad", "d"]),
        (64, 1, ["a"]),
        (64, 1, ["bad"]),
        (64, 1, ["d"]),
        (64, 1, ["e"]),
        (512, 1, ["b"]),  # with batch_size 3, one row of 20 s
        (512, 1, ["c"]),
    ]
    assert [number for number, _ in done] == [0, 2, 4, 5, 1, 3]
    results = dict(done)
    assert isinstance(results.pop(2), MemoryError)
    assert results == {0: "A", 1: "B", 3: "C", 4: "D", 5: "E"}
    assert [rows_per_call(bucket, 8) for bucket in (64, 256, 512, 1_200)] == [8, 8, 4, 1]
    assert [static_rows(rows, 8) for rows in (1, 2, 3, 5, 8)] == [1, 2, 4, 8, 8]
    assert [static_rows(rows, 6) for rows in (1, 2, 3, 5, 6)] == [1, 2, 4, 6, 6]


def test_a_failing_window_fails_its_clip_only_and_once(model, sounds, babble, monkeypatch):
    sample = model._animator.sample
    long = babble(25.0)

    def failing(bucket, num_rows, rows, identity, sampling):
        if any(len(row.clip.waveform) == len(long) for row in rows):
            raise MemoryError("too long")
        return sample(bucket, num_rows, rows, identity, sampling)

    monkeypatch.setattr(model._animator, "sample", failing)
    results = list(model.animate_each([long, sounds[0]]))
    assert sorted(index for index, _ in results) == [0, 1]
    assert isinstance(dict(results)[0], MemoryError)
    assert_close(dict(results)[1], model.animate(sounds[0]))


def test_a_clip_without_an_emotion_fails_alone(model, sounds, babble, monkeypatch):
    embed = model._animator.embed
    long = babble(12.0)

    def failing(bucket, num_rows, pieces):
        if any(piece.first_sample for piece in pieces):
            raise MemoryError("second piece")
        return embed(bucket, num_rows, pieces)

    monkeypatch.setattr(model._animator, "embed", failing)
    results = dict(model.animate_each([long, sounds[0]]))
    assert isinstance(results[0], MemoryError)
    assert_close(results[1], model.animate(sounds[0]))


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
    """Returns DEE for 2 s of speech and the generator, each with its variables."""
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
    """Returns `options -> Animator`, always the same one, because its programs do not depend on the options."""
    animator = Animator(*toy, OURS)

    def choose(options):
        animator.options = options
        return animator

    return choose


def animated(animator, sounds):
    request = Request(np.float32([0, 1, 0]), Sampling(batch_size=4))
    clips = [Clip(sound, animator.options) for sound in sounds]
    done = dict(animate_clips(animator, clips, request))
    return [done[index][0] for index in range(len(sounds))]


@pytest.fixture(scope="module")
def unpadded(toy):
    """Returns functions from `[1, s]` samples of whole top codes to emotion and motion, without any bucket."""
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
def test_padding_to_a_bucket_does_not_change_the_motion(
    animator_with, unpadded, babble, options, num_samples
):
    sound = babble(num_samples / 16_000)
    (made,) = animated(animator_with(options), [sound])
    audio = np.pad(sound, (0, 38_400 - num_samples))[None]  # 60 frames, in a bucket of 64
    embed, generate = unpadded
    expected = generate(audio, embed(audio).mean)
    num_frames = -(-num_samples // 640)
    assert made.motion.shape == (num_frames, 53)
    np.testing.assert_array_equal(made.indices_top, expected.indices_top[0, : -(-num_frames // 4)])
    np.testing.assert_array_equal(made.indices_bottom, expected.indices_bottom[0, : -(-num_frames // 2)])
    np.testing.assert_allclose(made.motion, expected.motion[0, :num_frames], rtol=1e-4, atol=1e-5)


def test_the_published_rules_give_the_same_motion_alone_and_in_a_list(animator_with, babble):
    sounds = [babble(seconds, seed) for seed, seconds in enumerate((1.2, 2.5, 2.2))]
    animator = animator_with(PUBLISHED)
    for sound, motion in zip(sounds, animated(animator, sounds), strict=True):
        (alone,) = animated(animator, [sound])
        np.testing.assert_array_equal(alone.indices_bottom, motion.indices_bottom)
        np.testing.assert_allclose(alone.motion, motion.motion, rtol=1e-4, atol=1e-5)


def test_first_10s_embeds_the_start_after_encoding_the_whole_clip(animator_with, unpadded, babble):
    sound = babble(2.4)  # the tower takes the first 2 s
    animator = animator_with(OURS_UP_TO_2_S)
    (found,) = embed_clips(animator, [Clip(sound, OURS_UP_TO_2_S)], 1)
    embed, _ = unpadded
    whole = Gaussian(*(array[0] for array in embed(sound[None])))
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.log_variance, whole.log_variance, rtol=1e-4, atol=1e-5)
    # The encoder also processes the audio after the first 2 s.
    changed = sound.copy()
    changed[36_000:] = sound[:2_400]
    (other,) = embed_clips(animator, [Clip(changed, OURS_UP_TO_2_S)], 1)
    assert np.abs(other.mean - found.mean).max() > 1e-4
    # It processes at most the longest window.
    (piece,) = animator.emotion_pieces(Clip(babble(30.0), OURS_UP_TO_2_S))
    assert piece[0] == 192 and piece[1].num_samples == 192 * 640


def test_pieces_and_windows_by_hand(animator_with, babble):
    clip = Clip(babble(12.0), OURS)
    animator = animator_with(OURS)
    pieces = [
        (bucket, piece.first_sample, piece.num_samples) for bucket, piece in animator.emotion_pieces(clip)
    ]
    assert pieces == [(50, 32_000 * number, 32_000) for number in range(6)]
    assert len(animator.emotion_pieces(Clip(babble(2.9), OURS))) == 1  # the last 0.9 s are dropped
    assert animator.motion_windows(clip) == [(192, (0, 192)), (192, (64, 192)), (192, (128, 172))]
    # The published padding adds four frames to 300; one longer window holds them all.
    assert animator_with(PUBLISHED).motion_windows(Clip(babble(12.0), PUBLISHED)) == [(320, (0, 304))]


def test_a_model_with_an_unknown_inference_option_is_rejected(model_parts, tmp_path):
    config = model_parts["deeptalk"].config.copy_and_resolve_references().unlock()
    config.inference.alpha_mode = "std"
    save_model(
        tmp_path, model_parts | {"deeptalk": model_parts["deeptalk"]._replace(config=config)}, head="x"
    )
    with pytest.raises(UserError, match=r"inference.alpha_mode='std': expected one of"):
        DeepTalk.load(tmp_path)
