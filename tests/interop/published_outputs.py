"""Computes outputs of imported models under the names of the published reference arrays (tests/goldens/README.md).

Every function `*_outputs` returns `{array name: value}` for one part of the reference. The expected numbers are read in
test_published_parity.py only.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np

from deeptalk_jax.assembly import build
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.fer import FER
from deeptalk_jax.models.positions import sinusoidal_positions

# Compilation takes most of the time of these functions, so the compiler does not optimise.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def captured(model, variables, *args, names, **kwargs):
    """Returns the output of `model.apply`, and the first output of every submodule in `names` by path."""

    def wanted(module, method):
        return module.name in names and method == "__call__"

    @quick_jit
    def apply(variables, *args):
        return model.apply(
            variables, *args, capture_intermediates=wanted, mutable=["intermediates"], **kwargs
        )

    output, state = apply(variables, *args)
    parts = {}

    def visit(tree, path):
        for key, value in tree.items():
            if key == "__call__":
                parts["/".join(path)] = np.asarray(
                    value[0].values if hasattr(value[0], "values") else value[0]
                )
            elif isinstance(value, dict):
                visit(value, (*path, key))

    visit(state["intermediates"], ())
    return jax.tree.map(np.asarray, output), parts


def full(waveform):
    """Returns the sample counts of a batch without padding."""
    return np.full(len(waveform), waveform.shape[1], np.int32)


def batch_normalised(waveform):
    """Normalises to zero mean and unit variance over the whole batch, as the published code does."""
    return ((waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)).astype(np.float32)


def margin(scores):
    """Returns the difference between the largest and the second largest score."""
    ordered = np.sort(scores, axis=-1)
    return ordered[..., -1] - ordered[..., -2]


def fer_outputs(part, pseudo):
    model = build.build_fer(part.config)
    x, x_seq = pseudo.pseudo_flame("fer", 1, 16)[0], pseudo.pseudo_flame("fer-seq", 2, 32)
    norms = [f"norm_{index}" for index in range(7)]
    logits, parts = captured(model, part.variables, x, names=norms)
    features = quick_jit(functools.partial(model.apply, method=FER.features))
    feature, feature_seq = (np.asarray(features(part.variables, value)) for value in (x, x_seq))
    blocks = {f"block{i}": np.asarray(jax.nn.leaky_relu(parts[norms[i]][:4], 0.01)) for i in range(7)}
    return {
        "x": x,
        "x_seq": x_seq,
        "logits": logits,
        "feature": feature,
        "feature_seq": feature_seq,
        **blocks,
    }


def prior_outputs(part, pseudo):
    model = build.build_motion_prior(part.config)
    x = pseudo.pseudo_flame("vqvae", 4, 32)
    names = {"squasher", "linear", "expander", "transformer", "upsample_top", "decoder_top"}
    names |= {"encoder_top", "encoder_bottom"}
    output, parts = captured(model, part.variables, x, names=names)
    codebooks = part.variables["codebook"]
    latents = {
        "t": parts["encoder_top"],
        "b": np.concatenate([parts["decoder_top"], parts["encoder_bottom"]], -1),
    }
    result = {
        "x": x,
        "enc_b": parts["encoder_bottom"],
        "enc_t": parts["encoder_top"],
        "dec_t": parts["decoder_top"],
        "upsample_t": parts["upsample_top"],
        "recon": output.motion,
        "quant_loss": np.array([output.top.commitment + output.bottom.commitment]),
        "enc_b_squasher": parts["encoder_bottom/squasher"].swapaxes(1, 2),
        "enc_b_linear": parts["encoder_bottom/linear"],
        "dec_b_expander_s0": parts["decoder_bottom/expander"][0].T,
        "dec_b_transformer_s0": parts["decoder_bottom/transformer"][0],
    }
    for short, level, quantised in (("t", "top", output.top), ("b", "bottom", output.bottom)):
        result |= {
            f"idx_{short}": quantised.indices,
            f"quant_{short}": quantised.codes,
            f"loss_{short}": quantised.commitment[None],
            f"perplexity_{short}": quantised.perplexity[None],
        }
        codes = codebooks[f"quantizer_{level}"]["embedding"]
        distance = np.square(latents[short][:, :, None] - codes[None, None]).sum(-1)
        result[f"margin_{short}"] = margin(-distance)
    for length in (4, 40, 128):
        x = pseudo.pseudo_flame(f"vqvae-{length}", 1, length)
        other = quick_jit(model.apply)(part.variables, x)
        result |= {f"T{length}_x": x, f"T{length}_recon": np.asarray(other.motion)}
        result |= {f"T{length}_idx_t": other.top.indices, f"T{length}_idx_b": other.bottom.indices}
    return result


def decoded(part, indices_top, indices_bottom):
    """Returns the motion decoded from given code indices."""
    model = build.build_motion_prior(part.config)

    def decode(model):
        return model.decode(model.lookup_top(indices_top), model.lookup_bottom(indices_bottom))

    return np.asarray(quick_jit(functools.partial(model.apply, method=decode))(part.variables))


AUDIO_ROWS = {"deeptalk": (2, 40960), "deeptalk-emotion": (2, 32000), "deeptalk-demo": (1, 37000)}
AUDIO_ROWS |= {"deeptalk-win": (1, 20480), "dee": (2, 32000)}


class Speech(NamedTuple):
    """Waveforms of the reference by tag, DEE's Gaussians of them, and their wav2vec 2.0 features."""

    audio: dict
    emotion: dict
    content: dict


def audio_rows(pseudo, demo_samples):
    """Returns waveforms `[b, s]` by tag. The demo clip ends in zeros, which the reference treats as sound."""
    audio = {tag: pseudo.pseudo_audio(tag, *shape) for tag, shape in AUDIO_ROWS.items()}
    demo = audio["deeptalk-demo"]
    audio["deeptalk-demo"] = np.pad(demo, ((0, 0), (0, demo_samples - demo.shape[1])))
    return audio


def padded(clips):
    """Returns one batch of clips of several lengths, padded with 0.3, and their lengths.

    The padding is not zero, so that a missing mask changes the results.
    """
    rows = [row for clip in clips for row in clip]
    batch = np.full((len(rows), max(map(len, rows))), 0.3, np.float32)
    for target, row in zip(batch, rows, strict=True):
        target[: len(row)] = row
    return batch, np.array([len(row) for row in rows], np.int32)


def by_tag(values, clips):
    """Splits the rows of a batch by tag; `clips` holds the clips of each tag in batch order."""
    ends = np.cumsum([len(clip) for clip in clips.values()])
    return {
        tag: jax.tree.map(lambda x, end=end, tag=tag: x[end - len(clips[tag]) : end], values)
        for tag, end in zip(clips, ends, strict=True)
    }


def speech_of(dee, predictor, audio):
    """Runs both speech encoders, each on one padded batch of all clips. Also returns DEE's intermediate outputs."""
    model = build.build_dee(dee.config)
    names = {
        "speech_encoder",
        "encoder",
        "mean_encoder",
        "log_variance_encoder",
        "mean_map",
        "log_variance_map",
    }
    gaussians, parts = captured(
        model, dee.variables, *padded(audio.values()), names=names, method=DEE.embed_audio
    )
    encoder = build.build_speech_encoder(predictor.config.model.speech).clone(waveform_eps=None)
    clips = {tag: batch_normalised(clip) for tag, clip in audio.items() if tag.startswith("deeptalk")}
    del clips["deeptalk-emotion"]
    clips["single"] = batch_normalised(audio["deeptalk"][:1])
    content, _ = captured(
        encoder,
        {"params": predictor.variables["params"]["speech_encoder"]},
        *padded(clips.values()),
        names=(),
        num_frames=64,
    )
    return Speech(audio, by_tag(gaussians, audio), by_tag(content.values, clips)), by_tag(parts, audio)["dee"]


def dee_audio_outputs(speech, parts):
    """Returns the audio arrays of golden_dee from the results of `speech_of`."""
    mean, log_variance = speech.emotion["dee"]
    num = 99  # number of speech features in 2 s
    features = parts["speech_encoder"][:, :num]
    head = "audio_tower/head"
    return {
        "audio": speech.audio["dee"],
        "audio_mean": mean,
        "audio_logvar": log_variance,
        "emotion2vec_s0_every4": features[0, ::4],
        "pos_encoded_s0_every8": (features[0] + sinusoidal_positions(num, 768))[::8],
        "encoder_s0_every8": parts["audio_tower/encoder"][0, :num:8],
        "mean_encoder_s0_every8": parts[f"{head}/mean_encoder"][0, :num:8],
        "uncertainty_encoder_s0_every8": parts[f"{head}/log_variance_encoder"][0, :num:8],
        "mean_map_s0": parts[f"{head}/mean_map"][0, :num],
        "std_map_s0": parts[f"{head}/log_variance_map"][0, :num],
    }


def long_audio_outputs(part, pseudo):
    """Returns the Gaussian of a 12 s clip: emotion2vec gets the whole clip, the tower its first 500 features."""
    model = build.build_dee(part.config)
    audio = pseudo.pseudo_audio("dee-long", 1, 192000)
    mean, log_variance = quick_jit(functools.partial(model.apply, method=DEE.embed_audio))(
        part.variables, audio, full(audio)
    )
    return {"long12s_mean": np.asarray(mean), "long12s_logvar": np.asarray(log_variance)}


def dee_motion_outputs(part, fer, pseudo):
    model = build.build_dee(part.config)
    embed = quick_jit(functools.partial(model.apply, method=DEE.embed_motion))
    # One padded batch, because the result of a clip does not depend on the other clips.
    lengths = (1, 25, 50, 125, 250)
    rows = np.full((2 * len(lengths), max(lengths), 128), 7.0, np.float32)
    for index, length in enumerate(lengths):
        rows[2 * index : 2 * index + 2, :length] = pseudo.pseudo_normal(f"dee-exp-{length}", (2, length, 128))
    gaussian = embed(part.variables, rows, np.repeat(np.array(lengths, np.int32), 2))
    result = {}
    for index, length in enumerate(lengths):
        pair = slice(2 * index, 2 * index + 2)
        result[f"exp{length}_mean"] = np.asarray(gaussian.mean[pair])
        result[f"exp{length}_logvar"] = np.asarray(gaussian.log_variance[pair])
    flame = pseudo.pseudo_flame("dee-flame", 2, 32)
    feature = np.asarray(build.build_fer(fer.config).apply(fer.variables, flame, method=FER.features))
    (mean, log_variance), parts = captured(
        model,
        part.variables,
        feature,
        np.array([32, 32], np.int32),
        names={"motion_map", "encoder"},
        method=DEE.embed_motion,
    )
    mapped = parts["motion_map"][0]
    return result | {
        "flame": flame,
        "fer_feature": feature,
        "flame_mean": mean,
        "flame_logvar": log_variance,
        "exp_map_s0": mapped[::4],
        "exp_pos_s0": (mapped + sinusoidal_positions(32, 512))[::4],
        "exp_encoder_s0": parts["motion_tower/encoder"][0, ::4],
    }
