"""Modules that are built from configs, and configs that are refused."""

import pytest
from ml_collections import ConfigDict

from configs import dee, deeptalk, fer, lip_reader, motion_prior
from deeptalk_jax.assembly import build
from deeptalk_jax.errors import ConfigError, UserError
from deeptalk_jax.models.fer import FER


def test_keys_of_a_section_are_fields_of_the_module():
    section = ConfigDict({"hidden_dims": [5, 7], "kind": "mlp", "dropout_rate": 0.25})
    module = build.module_from_section(FER, section, "model", not_fields=("kind",), dropout_rate=0.5)
    assert module == FER(hidden_dims=(5, 7), dropout_rate=0.5)


def test_a_key_that_the_module_lacks_is_refused_with_the_fields_of_the_module():
    section = ConfigDict({"hidden_dim": 5})
    message = r"model\.hidden_dim=5: FER has no field of that name; expected one of dropout_rate, dtype, .*hidden_dims"
    with pytest.raises(ConfigError, match=message):
        build.module_from_section(FER, section, "model")


@pytest.mark.parametrize(
    ("config", "builder"),
    [
        (fer, build.build_fer),
        (dee, build.build_dee),
        (motion_prior, build.build_motion_prior),
        (lip_reader, build.build_lip_reader),
        (deeptalk, lambda config: build.build_generator(config, motion_prior.get_config())),
    ],
)
def test_every_builder_refuses_an_unknown_key_of_its_section(config, builder):
    changed = config.get_config().unlock()
    changed.model.num_wheels = 4
    with pytest.raises(ConfigError, match=r"model\.num_wheels=4: \w+ has no field of that name"):
        builder(changed)


def test_dee_takes_its_fields_from_the_config():
    config = dee.get_config("variant=mini")
    model = build.build_dee(config)
    for name in ("audio_layers", "motion_layers", "num_heads", "mlp_dim", "embedding_dim", "pooling"):
        assert getattr(model, name) == config.model[name]
    # Both towers take 10 s: mel features and motion frames are both at 25 Hz.
    assert (model.max_speech_features, model.max_motion_frames) == (250, 250)
    assert build.build_dee(dee.get_config("variant=base")).max_speech_features == 500


def test_the_quantizer_of_the_one_level_prior_has_the_options_of_the_hierarchy():
    config = motion_prior.get_config("ablation=one_level_equal_codes")
    quantizer = build.build_motion_prior(config).quantizer
    assert quantizer.codebook_size == 2 * 512
    assert quantizer.code_dim == 2 * config.model.dim
    assert quantizer.decay == config.model.ema_decay
    for name in ("commitment_weight", "ema_smoothing", "start_after", "revive_after"):
        assert getattr(quantizer, name) == config.model[name]
    assert quantizer.initialisation == config.model.codebook_initialisation


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "hubert"}, r"speech\.kind='hubert': expected one of mel, wav2vec2, emotion2vec"),
        (
            {"kind": "emotion2vec", "rate_hz": 25},
            r"speech\.rate_hz=25: expected 50, the rate of .*'emotion2vec'",
        ),
    ],
)
def test_unknown_speech_encoders_and_rates_are_refused(change, message):
    config = dee.get_config("variant=base").model.speech.unlock()
    config.update(change)
    with pytest.raises(ConfigError, match=message):
        build.build_speech_encoder(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "flat"}, r"model\.kind='flat': expected one of hierarchical, one_level, temporal_vae"),
        (
            {"kind": "one_level", "one_level": {"codebook": "top"}},
            r"model\.one_level\.codebook='top': expected one of bottom, both",
        ),
        ({"dtype": "float16"}, r"model\.dtype='float16': expected one of float32, bfloat16"),
    ],
)
def test_unknown_kinds_of_motion_priors_are_refused(change, message):
    config = motion_prior.get_config().unlock()
    config.model.update(change)
    with pytest.raises(ConfigError, match=message):
        build.build_motion_prior(config)


@pytest.mark.parametrize(
    ("ablation", "message"),
    [
        ("temporal_vae", "the generator needs a hierarchical motion prior, not model.kind='temporal_vae'"),
        ("rate_4_8", r"of \(2, 4\) frames per bottom and top code, not \(4, 8\)"),
    ],
)
def test_the_generator_refuses_priors_without_its_codes(ablation, message):
    prior_config = motion_prior.get_config(f"ablation={ablation}")
    with pytest.raises(UserError, match=message):
        build.build_generator(deeptalk.get_config(), prior_config)


def test_identity_vectors():
    config = deeptalk.get_config()
    mean = build.identity_vector(config, None)
    assert mean.shape == (32,)
    assert float(mean.sum()) == pytest.approx(1.0)
    assert int((mean > 0).sum()) == 24
    assert build.identity_vector(config, 5).argmax() == 5
    with pytest.raises(ValueError, match="identity 24 is not one of the trained identities 0 to 23"):
        build.identity_vector(config, 24)


def test_configs_from_before_a_key_existed_take_the_default_of_the_field():
    config = deeptalk.get_config("variant=mini").unlock().model.speech
    config.max_band_shift = 0.0
    expected = build.build_speech_encoder(config)
    del config.window_samples, config.hop_samples, config.max_band_shift
    assert build.build_speech_encoder(config) == expected
