"""Full-size encoders with pseudo-weights against outputs of the published code (tests/goldens/README.md)."""

import jax
import jax.numpy as jnp
import numpy as np

from deeptalk_jax.interop.speech_names import emotion2vec_params, wav2vec2_params
from deeptalk_jax.models.speech.emotion2vec import Emotion2Vec
from deeptalk_jax.models.speech.frontend import normalise_waveform
from deeptalk_jax.models.speech.wav2vec2 import Wav2Vec2

SHOWN = {
    "frontend",
    "feature_projection",
    "positional_conv",
    "position_branch",
    "encoder_norm",
    "prenet_norm",
}


def shown(module, method):
    """Returns whether an output is captured: those of the large parts and of every layer are."""
    name = module.name or ""
    layer = name.startswith(("layer_", "prenet_", "block_"))
    return method == "__call__" and (name in SHOWN or layer)


def forward(model, params, waveform, num_samples=None):
    @jax.jit
    def apply(params, waveform, num_samples):
        return model.apply(
            {"params": params}, waveform, num_samples, capture_intermediates=shown, mutable=["intermediates"]
        )

    features, state = apply(params, waveform, num_samples)
    return features, state["intermediates"]


def only_output(intermediates):
    return np.asarray(intermediates["__call__"][0])


def test_wav2vec2_equals_the_published_code(goldens, pseudo):
    published = goldens("wav2vec2")
    state = {name: pseudo.pseudo_weight(name, shape) for name, shape in published.tensors}
    # The published code normalises over the batch, so the waveforms are normalised here. Row 2 is sample 0 in a batch
    # of one.
    model = Wav2Vec2(resample_to_hz=25.0, waveform_eps=None)
    params = wav2vec2_params(state, model, prefix="audio_model.model.")
    audio = pseudo.pseudo_audio("deeptalk", 2, 40960)
    together = (audio - audio.mean()) / np.sqrt(audio.var() + 1e-7)
    alone = normalise_waveform(audio[:1], jnp.array([40960]), eps=1e-7)
    features, parts = forward(model, params, np.concatenate([together, alone]).astype(np.float32))

    for index in range(7):
        conv = only_output(parts["frontend"][f"layer_{index}"])
        published.check(f"conv{index}_s0_every16ch_first40", conv[0, :40, ::16].T)
    published.check("interpolated_s0_every8", parts["resampled"][0][0, ::8])
    published.check("projection_s0_every8", only_output(parts["feature_projection"])[0, ::8])
    published.check("pos_conv_s0_every16", only_output(parts["positional_conv"])[0, ::16])
    published.check("hidden0_s0_every16", only_output(parts["encoder_norm"])[0, ::16])
    for index in (1, 4, 8, 12):
        published.check(f"hidden{index}_s0_every16", only_output(parts[f"layer_{index - 1}"])[0, ::16])
    published.check("last_hidden_every4", features.values[:2, ::4])
    published.check("last_hidden_s0_alone", features.values[2:, ::4])

    stretched = jax.jit(lambda p, x: model.apply({"params": p}, x, num_frames=50, stretch=True))(
        params, alone
    )
    published.check("desired_output_length_50_s0", stretched.values[:, ::8])


def test_emotion2vec_equals_the_published_code(goldens, pseudo):
    published = goldens("emotion2vec")
    state = {name: pseudo.pseudo_weight(name, shape) for name, shape in published.tensors}
    model = Emotion2Vec()
    params = emotion2vec_params(state, model)
    # The short clip is a padded row of the batch here; the published code encodes it alone.
    short = np.pad(published["audio_short"], ((0, 0), (0, 20480 - 4000)), constant_values=3.0)
    waveform = np.concatenate([published["audio"], short])
    features, parts = forward(model, params, waveform, np.array([20480, 20480, 4000]))

    for index in range(7):
        conv = only_output(parts["frontend"][f"layer_{index}"])
        published.check(f"conv{index}_s0_every16ch_first40", conv[0, :40, ::16].T)
    published.check("project_s0_every8", only_output(parts["feature_projection"])[0, ::8])
    published.check("relpos_s0_every8", only_output(parts["position_branch"])[0, ::8])
    published.check("prenet_norm_s0_every8tok", only_output(parts["prenet_norm"])[0, ::8])
    for name in ("prenet0", "prenet3", "block0", "block3", "block7"):
        layer = only_output(parts[f"{name[:-1]}_{name[-1]}"])
        published.check(f"{name}_s0_every16tok", layer[0, ::16])
    published.check("x_every4", features.values[:2, ::4])
    np.testing.assert_array_equal(features.mask.sum(1), [63, 63, 12])
    published.check("x_short", features.values[2:, :12])
    # An epsilon of 1e-6 instead of 1e-5 in the norms would exceed this root mean square error.
    assert np.sqrt(np.mean((features.values[:2, ::4] - published["x_every4"]) ** 2)) < 1.5e-5
