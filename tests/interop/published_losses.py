"""Computes losses of given Gaussians and motion under the names of the published reference arrays."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from deeptalk_jax.assembly import build
from deeptalk_jax.losses.consistency import emotion_consistency
from deeptalk_jax.losses.contrastive import (
    gaussian_samples,
    match_logits,
    match_loss,
    sampled_match_logits,
)
from deeptalk_jax.losses.distances import closed_form_sampled_distance
from deeptalk_jax.losses.motion import jaw_error, parameter_error, squared_error
from deeptalk_jax.losses.reduce import weighted_total
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.fer import FER
from deeptalk_jax.stages.dee_terms import contrastive_terms
from deeptalk_jax.types import Gaussian
from tests.interop.published_outputs import full, quick_jit


def csd_terms(config, motion, audio, scale, shift, labels, *, smoothing=0.0):
    """Returns DEE's loss as its stage composes it, and its terms under the names of the reference."""
    with config.loss.copy_and_resolve_references().unlocked() as options:
        options.smoothing = smoothing
    mixtures = (Gaussian(*(moment[:, None] for moment in gaussian)) for gaussian in (audio, motion))
    parts, part_weights = contrastive_terms(options, *mixtures, labels, scale, shift, jax.random.key(0))
    distance = closed_form_sampled_distance(motion, audio)
    points = (Gaussian(gaussian.mean, jnp.full_like(gaussian.mean, -1e9)) for gaussian in (motion, audio))
    squared = closed_form_sampled_distance(*points)
    terms = {
        "bce": parts["match"] / 2.0,
        "mu_pdist_mean": jnp.mean(squared),
        "sigma_pdist_mean": jnp.mean(distance - squared),
        "kl_exp": parts["kl_motion"],
        "kl_audio": parts["kl_audio"],
        "logits": match_logits(distance, scale, shift),
        "sims": -distance,
    }
    return weighted_total(parts, part_weights), terms


def stored_gaussians(given):
    return {
        name: (jnp.asarray(given[f"{name}_mean"]), jnp.asarray(given[f"{name}_logvar"]))
        for name in ("exp", "audio")
    }


def csd_outputs(dee, given):
    """Returns the loss, its terms and its gradients for the Gaussians stored with the reference."""
    gaussians = stored_gaussians(given)

    def loss(g, scale, shift, labels, smoothing):
        terms = (Gaussian(*g["exp"]), Gaussian(*g["audio"]), scale, shift, labels)
        return csd_terms(dee.config, *terms, smoothing=smoothing)

    step = quick_jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True), static_argnums=4)
    pseudo = [dee.variables["params"][name] for name in ("scale", "shift")]
    five = [np.float32(5.0), np.float32(5.0)]
    diagonal, same = np.arange(6), given["csd_label_matched"].argmax(1)
    np.testing.assert_array_equal(same[:, None] == same, given["csd_label_matched"])
    result = {}
    for prefix, (scale, shift), labels, smoothing in (
        ("csd", five, diagonal, 0.0),
        ("csd_pseudo", pseudo, diagonal, 0.0),
        ("csd_label", five, same, 0.0),
        ("csd_smooth0p1", five, diagonal, 0.1),
    ):
        (loss, terms), (gradient, by_scale, by_shift) = step(gaussians, scale, shift, labels, smoothing)
        result |= {
            f"{prefix}_loss": loss[None],
            **{f"{prefix}_{name}": value[None] for name, value in terms.items() if not value.ndim},
            f"{prefix}_grad_negative_scale": by_scale[None],
            f"{prefix}_grad_shift": by_shift[None],
        }
        result |= gradients_of(prefix, gradient)
        if prefix == "csd":
            result |= {"csd_logits": terms["logits"], "csd_sims": terms["sims"]}
    return result


def gradients_of(prefix, gradient):
    return {
        f"{prefix}_grad_{name}_{moment}": value
        for name, pair in gradient.items()
        for moment, value in zip(("mean", "logvar"), pair, strict=True)
    }


def monte_carlo_outputs(pseudo, given):
    """Returns the sampled soft contrastive loss.

    The reference sums the loss over pairs, and its similarity over samples.
    """
    noise = {name: pseudo.pseudo_normal(f"loss-eps-{name}", (6, 8, 128)) for name in ("exp", "audio")}
    diagonal = np.eye(6, dtype=bool)

    @quick_jit
    def step(gaussians):
        def loss(gaussians):
            samples = (gaussian_samples(Gaussian(*gaussians[name]), noise[name]) for name in noise)
            logits = sampled_match_logits(*samples, 5.0, 5.0)
            losses = match_loss(logits, diagonal)
            return jnp.sum(losses), (logits, losses)

        return jax.value_and_grad(loss, has_aux=True)(gaussians)

    (total, (logits, losses)), gradient = step(stored_gaussians(given))
    return {
        "mc_eps_exp": noise["exp"],
        "mc_eps_audio": noise["audio"],
        "mc_loss": total[None],
        "mc_pos": losses[diagonal].sum()[None] / 2.0,
        "mc_neg": losses[~diagonal].sum()[None] / 2.0,
        "matching_prob_sims": 8 * 8 * jax.nn.sigmoid(logits),
        **gradients_of("mc", gradient),
    }


def velocity_error(values, target):
    """Mean squared difference of the changes from frame to frame, `[b, t - 1]`; published, but no config uses it."""
    return squared_error(jnp.diff(values, axis=1), jnp.diff(target, axis=1))


def standardised_over_time(motion):
    """Every channel of every clip minus its mean, divided by its unbiased standard deviation over time."""
    return (motion - motion.mean(1, keepdims=True)) / motion.std(1, ddof=1, keepdims=True)


def motion_outputs(pseudo):
    """Returns motion errors; the reference passes motion parameters to its vertex losses too."""
    flame, target = (pseudo.pseudo_flame(tag, 2, 32) for tag in ("loss", "loss2"))
    to_standardise = pseudo.pseudo_flame("loss-norm", 2, 20)
    commitment = 0.37
    vertices = 1e6 * jnp.mean(squared_error(1e-3 * flame, 1e-3 * target))
    return {
        "normalize_exp_x": to_standardise,
        "normalize_exp_y": standardised_over_time(to_standardise),
        "vq_flame_L1": jnp.mean(parameter_error("l1", flame, target))[None] + commitment,
        "vq_vertice_L2": vertices[None] + commitment,
        "vq_vertice_L2_recon": vertices[None],
        "vertex_loss": jnp.mean(squared_error(flame, target))[None],
        "velocity_loss": jnp.mean(velocity_error(flame, target))[None],
        "jaw_loss": jnp.mean(jaw_error(flame, target))[None],
    }


def consistency_outputs(prefixes, a, b, scale, shift):
    """Returns both kinds of emotion consistency under each prefix."""
    values = {kind: jnp.mean(emotion_consistency(kind, a, b, scale, shift)) for kind in ("mean", "csd")}
    return {f"{prefix}_{kind}": value[None] for prefix in prefixes for kind, value in values.items()}


def stored_consistency_outputs(given):
    """Returns the consistency of the stored Gaussians; motion with motion (`vv`) uses the same formula."""
    exp, audio = (Gaussian(*pair) for pair in stored_gaussians(given).values())
    return consistency_outputs(("consistency", "vv"), audio, exp, 5.0, 5.0)


def real_consistency_outputs(dee, fer, pseudo):
    """Returns the emotion consistency of motion with speech and with other motion, computed by DEE and FER."""
    audio = pseudo.pseudo_audio("loss", 2, 20480)
    flame, target = (pseudo.pseudo_flame(tag, 2, 32) for tag in ("loss", "loss2"))
    speech_gaussian = speech_gaussians(dee, audio)
    embed = motion_embedder(dee, fer)
    motion_gaussian, target_gaussian = (quick_jit(embed)(motion) for motion in (flame, target))
    criterion = [dee.variables["params"][name] for name in ("scale", "shift")]
    return {
        "real_audio": audio,
        "real_flame": flame,
        "real_flame_target": target,
        **consistency_outputs(("real_consistency",), speech_gaussian, motion_gaussian, *criterion),
        **consistency_outputs(("real_vv",), target_gaussian, motion_gaussian, *criterion),
    }


def speech_gaussians(dee, audio):
    """Returns DEE's Gaussians of waveforms `[b, s]` without padding."""
    model = build.build_dee(dee.config)
    return quick_jit(functools.partial(model.apply, method=DEE.embed_audio))(
        dee.variables, audio, full(audio)
    )


def motion_embedder(dee, fer):
    """Returns a function that computes DEE's Gaussians of motion `[b, t, 53]` without padding."""
    model, classifier = build.build_dee(dee.config), build.build_fer(fer.config)

    def embed(motion):
        features = classifier.apply(fer.variables, motion, method=FER.features)
        lengths = np.full(len(motion), motion.shape[1], np.int32)
        return model.apply(dee.variables, features, lengths, method=DEE.embed_motion)

    return embed
