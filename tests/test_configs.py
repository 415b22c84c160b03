"""Every config, variant and ablation builds; unknown arguments say what there is."""

import importlib

import jax
import pytest

from configs import motion_prior
from configs.common import VARIANTS, parse_arg
from deeptalk_jax.assembly import build
from deeptalk_jax.errors import UserError

STAGES = ("fer", "dee", "motion_prior", "deeptalk", "lip_reader", "deeptalk_stage2")
MODULES = {stage: importlib.import_module(f"configs.{stage}") for stage in STAGES}
CASES = [
    (stage, variant, ablation)
    for stage, module in MODULES.items()
    for variant in VARIANTS
    for ablation in ("none", *module.ABLATIONS)
]


@pytest.mark.parametrize(("stage", "variant", "ablation"), CASES)
def test_builds(stage, variant, ablation):
    config = MODULES[stage].get_config(f"variant={variant},ablation={ablation}")
    assert config.is_locked
    assert (config.stage, config.variant, config.ablation) == (stage, variant, ablation)
    initialisers = {
        "fer": lambda key: build.init_fer(build.build_fer(config), key),
        "dee": lambda key: build.init_dee(
            build.build_dee(config),
            build.build_fer(MODULES["fer"].get_config(f"variant={variant}")).feature_dim,
            key,
        ),
        "motion_prior": lambda key: build.init_motion_prior(build.build_motion_prior(config), key),
        "deeptalk": lambda key: build.init_predictor(
            build.build_generator(config, motion_prior.get_config(f"variant={variant}")), 16, key
        ),
    }
    initialisers["deeptalk_stage2"] = initialisers["deeptalk"]
    initialisers["lip_reader"] = lambda key: build.init_lip_reader(
        build.build_lip_reader(config), config.model.crop_size, key
    )
    shapes = jax.eval_shape(initialisers[stage], jax.random.key(0))
    assert jax.tree.leaves(shapes["params"])


def test_ablations_change_something():
    for stage, module in MODULES.items():
        for name, overrides in module.ABLATIONS.items():
            changed = False
            for variant in VARIANTS:
                plain = module.get_config(f"variant={variant}")
                ablated = module.get_config(f"variant={variant},ablation={name}")
                for key in overrides:
                    *parents, leaf = key.split(".")
                    nodes = [plain, ablated]
                    for parent in parents:
                        nodes = [node[parent] for node in nodes]
                    changed |= nodes[0][leaf] != nodes[1][leaf]
            assert changed, f"{stage}: {name} is what both variants do anyway"


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("variant=huge", "unknown variant 'huge'; there are: mini, base"),
        ("size=mini", "unknown config argument 'size'; there are: variant, ablation"),
        ("ablation=all", "unknown ablation 'all'; there are: none, one"),
    ],
)
def test_unknown_arguments_list_what_there_is(arg, message):
    with pytest.raises(ValueError, match=message):
        parse_arg(arg, {"one": {}})


def test_defaults_and_unknown_keys():
    config = MODULES["fer"].get_config()
    assert config.variant == "mini"
    with pytest.raises(AttributeError, match="learning_rat"):
        config.optimiser.learning_rat = 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "hubert"}, "speech.kind='hubert' is not one of"),
        ({"kind": "emotion2vec", "rate_hz": 25}, "emotion2vec gives 50 features per second, not 25"),
    ],
)
def test_speech_encoders_that_cannot_be(change, message):
    config = MODULES["dee"].get_config("variant=base").model.speech.unlock()
    config.update(change)
    with pytest.raises(ValueError, match=message):
        build.build_speech_encoder(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "flat"}, "model.kind='flat' is not one of"),
        (
            {"kind": "one_level", "one_level": {"codebook": "top"}},
            "model.one_level.codebook='top' is not one",
        ),
    ],
)
def test_priors_that_cannot_be(change, message):
    config = motion_prior.get_config().unlock()
    config.model.update(change)
    with pytest.raises(ValueError, match=message):
        build.build_motion_prior(config)


@pytest.mark.parametrize(
    ("ablation", "message"),
    [
        ("temporal_vae", "the generator needs a hierarchical motion prior, not model.kind='temporal_vae'"),
        ("rate_4_8", r"of \(2, 4\) frames per bottom and top code, not \(4, 8\)"),
    ],
)
def test_priors_that_the_generator_cannot_have(ablation, message):
    prior_config = motion_prior.get_config(f"ablation={ablation}")
    with pytest.raises(UserError, match=message):
        build.build_generator(MODULES["deeptalk"].get_config(), prior_config)


def test_the_published_prior():
    """Schedule and sizes of the paper: 1500 epochs of MEAD at batch 256, warm-up, constant rate."""
    config = motion_prior.get_config("variant=base")
    assert (config.optimiser.learning_rate, config.optimiser.schedule) == (5e-4, "constant")
    assert (config.optimiser.warmup_steps, config.data.batch_size) == (4000, 256)
    assert config.optimiser.weight_decay > 0  # AdamW
    assert config.loss.smooth_targets
    assert config.loss.vertex_weight == 1e6
    codes = config.model
    assert (codes.codebook_size_top, codes.codebook_size_bottom) == (256, 256)
    assert (codes.frames_per_bottom_code, codes.frames_per_top_code) == (2, 4)


def test_identity_vectors():
    config = MODULES["deeptalk"].get_config()
    mean = build.identity_vector(config, None)
    assert mean.shape == (32,)
    assert float(mean.sum()) == pytest.approx(1.0)
    assert int((mean > 0).sum()) == 24
    assert build.identity_vector(config, 5).argmax() == 5
    with pytest.raises(ValueError, match="identity 24 is not one of the trained identities 0 to 23"):
        build.identity_vector(config, 24)


def test_models_from_before_an_option_of_the_spectrum_keep_their_encoder():
    config = MODULES["deeptalk"].get_config("variant=mini").unlock().model.speech
    expected = build.build_speech_encoder(config)
    del config.window_samples, config.hop_samples, config.max_band_shift
    assert build.build_speech_encoder(config) == expected
