"""Computes outputs of the imported generator under the names of the published reference arrays."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from deeptalk_jax.assembly import build
from deeptalk_jax.assembly.build import with_prior
from deeptalk_jax.masks import length_mask
from deeptalk_jax.models.generator import Generated, Generator
from deeptalk_jax.types import SpeechFeatures
from tests.interop.published_outputs import by_tag, captured, margin, quick_jit


class GivenSpeech(nn.Module):
    """Replaces the speech encoder; it takes speech features in place of the waveform and returns them."""

    def __call__(self, waveform, num_samples, *, num_frames, train=False):
        return SpeechFeatures(waveform, length_mask(num_samples, num_frames))


def with_noise(model, speech, lengths, emotion, identity, noise_top, noise_bottom):
    """Computes `Generator.sample` on windows without padding, with given Gumbel noise; a method for `apply`."""
    predictor, prior = model.predictor, model.prior
    face = predictor.face_features(speech, lengths, emotion, identity, num_frames=speech.shape[1])
    logits_top = predictor.logits_top(face)
    indices_top = jnp.argmax(logits_top + noise_top, -1)
    codes_top = prior.lookup_top(indices_top)
    logits_bottom = predictor.logits_bottom(face, prior.decode_top(codes_top))
    indices_bottom = jnp.argmax(logits_bottom + noise_bottom, -1)
    motion = prior.decode(codes_top, prior.lookup_bottom(indices_bottom))
    return Generated(motion, indices_top, indices_bottom, logits_top, logits_bottom)


def talk_cases(speech, drawn, identity, demo_frames):
    """Returns (speech, emotion, identity, number of frames) by prefix of the arrays; all rows run in one batch."""
    both, dee = speech.content["deeptalk"], speech.emotion["deeptalk"]
    return {
        "": (both, dee.mean, identity, 64),
        "single_": (speech.content["single"], dee.mean[:1], identity[:1], 64),
        "emo_": (both, speech.emotion["deeptalk-emotion"].mean, identity, 64),
        **{prefix: (both, z, identity, 64) for prefix, z in drawn.items()},
        "demo_": (
            speech.content["deeptalk-demo"],
            speech.emotion["deeptalk-demo"].mean,
            identity[:1],
            demo_frames,
        ),
        "win_": (speech.content["deeptalk-win"], speech.emotion["deeptalk-win"].mean, identity[1:], 32),
    }


def talk_outputs(prior, predictor, speech, given):
    """Returns the arrays of golden_deeptalk.

    `given` contains condition, gumbel_t, gumbel_b, sample_eps and demo_padded_len.
    """
    model = build.build_generator(predictor.config, prior.config)
    model = model.clone(predictor=model.predictor.clone(speech_encoder=GivenSpeech()))
    variables = with_prior(predictor.variables, prior.variables)
    both, dee = speech.content["deeptalk"], speech.emotion["deeptalk"]
    identity = given["condition"][:, 11:]
    drawn = {
        f"sample_{name}_": drawn_emotion(dee, control, given["sample_eps"][:, 0])
        for name, control in (("none", 1.0), ("0p5", 0.5), ("2", 2.0))
    }
    cases = talk_cases(speech, drawn, identity, int(given["demo_padded_len"][0]) // 640)
    content, emotion, identities = (np.concatenate([case[i] for case in cases.values()]) for i in range(3))
    frames = np.concatenate([np.full(len(case[0]), case[3], np.int32) for case in cases.values()])
    names = {"content_map", "emotion_map", "style_map", "face_transformer", "face_map", "decoder_top"}
    generated, parts = captured(
        model,
        variables,
        content,
        frames,
        emotion,
        identities,
        jax.random.split(jax.random.key(0), len(frames)),
        names=names,
        num_codes=frames // 4,
        num_frames=64,
        method=Generator.sample,
    )
    rows = by_tag((generated, parts), {prefix: case[0] for prefix, case in cases.items()})
    result = {"w2v_s0_every8": both[0, ::8], "dee_mean": dee.mean, "dee_logvar": dee.log_variance}
    for prefix, case in cases.items():
        result |= named(prefix, rows[prefix][0], case[3])
    parts = rows[""][1]
    result |= {
        "audio": speech.audio["deeptalk"],
        "win_audio": speech.audio["deeptalk-win"],
        "demo_raw": speech.audio["deeptalk-demo"][0, :37000],
        "emo_audio": speech.audio["deeptalk-emotion"],
        "emo_mean": speech.emotion["deeptalk-emotion"].mean,
        "content": parts["predictor/content_map"],
        "single_content": rows["single_"][1]["predictor/content_map"],
        "emotion_mapped": parts["predictor/emotion_map"],
        "style": parts["predictor/style_map"],
        "bert_s0": parts["predictor/face_transformer"][0],
        "decoder": parts["predictor/face_map"],
        "dec_t": parts["prior/decoder_top"],
        "margin_t": margin(result["logits_t"]),
        "margin_b": margin(result["logits_b"]),
    }
    for prefix, z in drawn.items():
        result[f"{prefix}embedding"] = z
        result[f"{prefix}emotion_mapped"] = rows[prefix][1]["predictor/emotion_map"]
    return result | gumbel_outputs(model, variables, both, dee.mean, identity, given)


def gumbel_outputs(model, variables, speech, emotion, identity, given):
    """Returns the arrays of two windows of 64 frames with the Gumbel noise of the reference."""
    lengths = np.full(2, 64, np.int32)
    generated = quick_jit(functools.partial(model.apply, method=with_noise))(
        variables, speech, lengths, emotion, identity, given["gumbel_t"], given["gumbel_b"]
    )
    result = named("gumbel_", generated, 64)
    for level in "tb":
        noisy = result[f"gumbel_logits_{level}"] + given[f"gumbel_{level}"]
        result[f"gumbel_margin_{level}"] = margin(noisy)
    return result


def drawn_emotion(gaussian, control, noise):
    """Samples an emotion with the published spread control, which multiplies the log-variance by `control`."""
    z = gaussian.mean + np.exp(0.5 * control * gaussian.log_variance) * noise
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def named(prefix, generated, num_frames):
    """Returns the arrays of one case without padding."""
    return {
        f"{prefix}flame": np.asarray(generated.motion)[:, :num_frames],
        f"{prefix}idx_t": np.asarray(generated.indices_top)[:, : num_frames // 4],
        f"{prefix}idx_b": np.asarray(generated.indices_bottom)[:, : num_frames // 2],
        f"{prefix}logits_t": np.asarray(generated.logits_top)[:, : num_frames // 4],
        f"{prefix}logits_b": np.asarray(generated.logits_bottom)[:, : num_frames // 2],
    }
