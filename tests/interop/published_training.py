"""Computes training steps of imported models under the names of the published reference arrays.

Gradients are returned in PyTorch's layout and flattened, as the reference stores them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict

from deeptalk_jax.assembly import build
from deeptalk_jax.assembly.build import with_prior
from deeptalk_jax.head.gram import squared_distance
from deeptalk_jax.interop.published_names import dee_places, predictor_places, prior_places
from deeptalk_jax.losses.consistency import emotion_consistency
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.quantizer import EMAQuantizer
from deeptalk_jax.models.sampling import straight_through_gumbel_softmax
from deeptalk_jax.stages.base import merged
from deeptalk_jax.stages.deeptalk import linear_tau
from deeptalk_jax.training.optimiser import make_schedule
from tests.interop.published_generator import GivenSpeech
from tests.interop.published_losses import csd_terms, motion_embedder, speech_gaussians
from tests.interop.published_outputs import batch_normalised, full, quick_jit


def in_torch_layout(places, tree):
    """Converts a collection to flat arrays by tensor name; tensors with a place outside `tree` are left out."""
    leaves = flatten_dict(tree)
    result = {}
    for name, place in places.items():
        if place.paths and all(path in leaves for path in place.paths):
            arrays = [_without_heads(path, np.asarray(leaves[path])) for path in place.paths]
            if place.convert.__name__ == "transposed_convolution":
                result[name] = arrays[0][::-1].transpose(1, 2, 0).ravel()
            elif place.convert.__name__ in ("reversed_axes", "joint_projection"):
                result[name] = np.concatenate([array.T for array in arrays]).ravel()
            else:
                result[name] = arrays[0].ravel()
    return result


def _without_heads(path, array):
    """Merges the axes heads and head size of attention weights; other arrays are returned unchanged."""
    if len(path) < 3 or path[-3] != "attention":
        return array
    if path[-1] == "bias":
        return array.ravel()
    shape = array.shape
    return array.reshape(-1, shape[-1]) if path[-2] == "out" else array.reshape(shape[0], -1)


def straight_through_outputs(given, monkeypatch):
    """Returns values and gradients of the straight-through Gumbel-softmax with the noise of the reference."""
    monkeypatch.setattr(jax.random, "gumbel", lambda *_, **__: jnp.asarray(given["st_gumbel"]))
    result = {}
    for tau in (2.0, 0.1):

        def total(logits, tau=tau):
            choice = straight_through_gumbel_softmax(logits, tau, jax.random.key(0))
            return jnp.sum(choice * given["st_weights"]), choice

        (_, choice), gradient = jax.value_and_grad(total, has_aux=True)(jnp.asarray(given["st_logits"]))
        result |= {f"st_onehot_tau{tau}": choice, f"st_grad_tau{tau}": gradient}
    return result


def ema_outputs(prior, given):
    """Returns outputs, gradients and states of two training steps of the top quantiser."""
    quantizer = EMAQuantizer(256, 128, ema_smoothing=prior.config.model.ema_smoothing)
    state = prior.variables["codebook"]["quantizer_top"]
    weights = given["ema_loss_weights_for_grad"]

    @quick_jit
    def step(latents, state):
        def loss(latents):
            output, changed = quantizer.apply({"codebook": state}, latents, train=True, mutable=["codebook"])
            return output.commitment + jnp.sum(output.codes * weights), (output, changed["codebook"])

        (_, (output, state)), gradient = jax.value_and_grad(loss, has_aux=True)(latents)
        return output, state, gradient

    result = {}
    for name in ("ema1", "ema2"):
        output, state, gradient = step(given[f"{name}_z"], state)
        result |= {
            f"{name}_idx": output.indices,
            f"{name}_loss": output.commitment[None],
            f"{name}_perplexity": output.perplexity[None],
            f"{name}_quantized_s0": output.codes[0],
            f"{name}_grad_z_s0": gradient[0],
            f"{name}_count": state["ema_count"],
            f"{name}_weight_first64": state["ema_sum"][:64],
            f"{name}_codebook_first64": state["embedding"][:64],
            f"{name}_codebook_rowsum": state["embedding"].sum(-1),
        }
    return result


def schedule_outputs(prior_config, dee_config):
    """Returns learning rates times 1e4, and the temperature of the Gumbel-softmax in three epochs."""
    warm = make_schedule(prior_config.optimiser, prior_config.num_steps)
    cosine = make_schedule(dee_config.optimiser, 300)  # One step represents one epoch.
    steps = (0, 1, 2, 1999, 3999, 4000, 4004)
    return {
        "lr_vqvae_step_0_1_2_1999_3999_4000_4004": np.array([1e4 * warm(step) for step in steps]),
        "lr_dee_epoch_1_2_151_300_301": np.array([1e4 * cosine(e - 1) for e in (1, 2, 151, 300, 301)]),
        "tau_stage12_epochs1to3": np.array(
            [linear_tau(epoch, start=2.0, end=0.1, num_steps=2) for epoch in range(3)]
        ),
    }


def prior_step_outputs(part, pseudo, factor):
    """Returns two training steps of TH-VQVAE without dropout, and the norm of every gradient by step."""
    with part.config.copy_and_resolve_references().unlocked() as config:
        config.model.dropout_rate = 0.0
    model = build.build_motion_prior(config)
    x = pseudo.pseudo_flame("train-vq", 8, 32)
    optimiser = optax.adamw(5e-4, weight_decay=0.01)
    state = dict(part.variables)
    params = state.pop("params")

    @quick_jit
    def step(params, state, opt_state):
        def loss(params):
            output, changed = model.apply(merged(params, state), x, train=True, mutable=list(state))
            recon = 1e6 * jnp.mean(squared_distance(factor, output.motion, x))
            commitment = output.top.commitment + output.bottom.commitment
            return recon + commitment, (output, recon, commitment, changed)

        (total, aux), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimiser.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, total, aux, gradient

    places, opt_state = prior_places(), optimiser.init(params)
    result, norms = {"vq_x": x}, []
    for name in ("vq1", "vq2"):
        params, opt_state, total, (output, recon, commitment, state), gradient = step(
            params, state, opt_state
        )
        result |= {
            f"{name}_loss": total[None],
            f"{name}_recon_loss": recon[None],
            f"{name}_quant_loss": commitment[None],
            f"{name}_pred": output.motion,
            f"{name}_idx_t": output.top.indices,
            f"{name}_idx_b": output.bottom.indices,
        }
        gradient = in_torch_layout(places, {"params": gradient})
        norms.append({key: np.linalg.norm(value) for key, value in gradient.items()})
        result |= {f"{name}_grad:{key}": value[:2000] for key, value in gradient.items()}
        for key, value in in_torch_layout(places, state).items():
            result[f"{name}_buf:{key}"] = value
            if key.endswith("ema_weight"):
                result[f"{name}_bufrowsum:{key}"] = value.reshape(256, -1).sum(-1)
        moved = in_torch_layout(places, {"params": params})
        result |= {f"{name}_param:{key}": value[:1000] for key, value in moved.items()}
    return result, norms


def dee_gradient_outputs(part, pseudo):
    """Returns DEE's loss in evaluation mode on batch-normalised audio, its gradients and their norms."""
    model = build.build_dee(part.config)
    model = model.clone(speech_encoder=model.speech_encoder.clone(waveform_eps=None))
    audio = pseudo.pseudo_audio("train-dee", 3, 16000)
    features = pseudo.pseudo_normal("train-dee", (3, 25, 128))
    lengths = np.full(3, 25, np.int32)
    params = part.variables["params"]
    # The published run trains the last two blocks of emotion2vec and all layers after it.
    trained = {"block_6", "block_7"}
    frozen = {key: tree for key, tree in params["speech_encoder"].items() if key not in trained}
    learned = {**params, "speech_encoder": {key: params["speech_encoder"][key] for key in trained}}

    @quick_jit
    def step(learned, frozen, audio):
        def loss(learned):
            encoder = {**frozen, **learned["speech_encoder"]}
            variables = {"params": {**learned, "speech_encoder": encoder}}
            speech, motion = model.apply(
                variables, audio, full(audio), features, lengths, method=DEE.__call__
            )
            labels = jnp.arange(3)
            total, _ = csd_terms(part.config, motion, speech, learned["scale"], learned["shift"], labels)
            return total, (speech, motion)

        return jax.value_and_grad(loss, has_aux=True)(learned)

    (total, (speech, motion)), gradient = step(learned, frozen, batch_normalised(audio))
    gradient = in_torch_layout(dee_places(model), {"params": gradient})
    result = {
        "dee_audio": audio,
        "dee_exp": features,
        "dee_audio_mean": speech.mean,
        "dee_audio_logvar": speech.log_variance,
        "dee_exp_mean": motion.mean,
        "dee_exp_logvar": motion.log_variance,
        "dee_loss": total[None],
        **{f"dee_grad:{key}": value[:2000] for key, value in gradient.items()},
    }
    return result, {key: np.linalg.norm(value) for key, value in gradient.items()}


def generator_gradient_outputs(prior, dee, fer, predictor, pseudo, given, factor, monkeypatch):
    """Returns the losses of stage 1 in evaluation mode, their gradients and the norms of the gradients."""
    audio, target = pseudo.pseudo_audio("train-s1", 2, 20480), pseudo.pseudo_flame("train-s1", 2, 32)
    noise = {value.shape: value for value in (given["s1_gumbel_t"], given["s1_gumbel_b"])}
    monkeypatch.setattr(jax.random, "gumbel", lambda key, shape, dtype: jnp.asarray(noise[shape]))
    model = build.build_generator(predictor.config, prior.config)
    encoder = model.predictor.speech_encoder.clone(waveform_eps=None)
    params = dict(predictor.variables["params"])
    encoder_params = {"params": params.pop("speech_encoder")}
    content = quick_jit(functools.partial(encoder.apply, num_frames=32))(
        encoder_params, batch_normalised(audio), full(audio)
    ).values
    emotion, embed = speech_gaussians(dee, audio), motion_embedder(dee, fer)
    criterion = [dee.variables["params"][name] for name in ("scale", "shift")]
    generator = model.clone(predictor=model.predictor.clone(speech_encoder=GivenSpeech()))

    def losses_of(motion):
        recon = jnp.mean(squared_distance(factor, motion, target))
        csd, mean = (
            jnp.mean(emotion_consistency(kind, emotion, embed(motion), *criterion))
            for kind in ("csd", "mean")
        )
        return recon + 1e-4 * csd, (recon, csd, mean)

    @quick_jit
    def step(params):
        def loss(params):
            variables = with_prior({**predictor.variables, "params": params}, prior.variables)
            motion = generator.apply(
                variables,
                content,
                np.full(2, 32, np.int32),
                emotion.mean,
                given["s1_condition"][:, 11:],
                num_frames=32,
                tau=1.0,
                train=False,
                rngs={"sample": jax.random.key(0)},
            ).motion
            return losses_of(motion)[0], motion

        (_, motion), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return motion, gradient, jax.value_and_grad(losses_of, has_aux=True)(motion)

    motion, gradient, ((total, (recon, csd, mean)), by_motion) = step(params)
    gradient = in_torch_layout(predictor_places(model), {"params": gradient})
    result = {
        "s1_audio": audio,
        "s1_target": target,
        "s1_pred": motion,
        "s1_recon": recon[None],
        "s1_av_csd": csd[None],
        "s1_av_mean": mean[None],
        "s1_loss": total[None],
        "s1_grad_pred": by_motion,
        **{f"s1_grad:{key}": value[:2000] for key, value in gradient.items()},
    }
    return result, {key: np.linalg.norm(value) for key, value in gradient.items()}
