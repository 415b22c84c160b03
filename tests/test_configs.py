"""All configs, variants and ablations build models; unknown arguments are refused with a list of choices."""

import jax
import pytest

from configs import motion_prior
from configs.common import VARIANTS, parse_arg
from deeptalk_jax.assembly import build
from deeptalk_jax.assembly.stage_table import STAGES

MODULES = {name: row.config_module for name, row in STAGES.items()}
CASES = [
    (stage, variant, ablation)
    for stage, module in MODULES.items()
    for variant in VARIANTS
    for ablation in ("none", *module.ABLATIONS)
]


def initialiser(stage, variant, config):
    """Returns `key -> variables` for the model of a config, on models of the same variant of earlier stages."""

    def upstream(name):
        return MODULES[name].get_config(f"variant={variant}")

    if stage == "fer":
        return lambda key: build.init_fer(build.build_fer(config), key)
    if stage == "dee":
        feature_dim = build.build_fer(upstream("fer")).feature_dim
        return lambda key: build.init_dee(build.build_dee(config), feature_dim, key)
    if stage == "motion_prior":
        return lambda key: build.init_motion_prior(build.build_motion_prior(config), key)
    if stage == "lip_reader":
        return lambda key: build.init_lip_reader(build.build_lip_reader(config), config.model.crop_size, key)
    generator = build.build_generator(config, upstream("motion_prior"))
    return lambda key: build.init_predictor(generator, upstream("dee").model.embedding_dim, key)


@pytest.mark.parametrize(("stage", "variant", "ablation"), CASES)
def test_builds(stage, variant, ablation):
    config = MODULES[stage].get_config(f"variant={variant},ablation={ablation}")
    assert config.is_locked
    assert (config.stage, config.variant, config.ablation) == (stage, variant, ablation)
    shapes = jax.eval_shape(initialiser(stage, variant, config), jax.random.key(0))
    assert jax.tree.leaves(shapes["params"])


def test_each_ablation_changes_a_variant():
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
            assert changed, f"{stage}: ablation {name} sets the values that both variants have already"


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("variant=huge", "unknown variant 'huge'; there are: mini, base"),
        ("size=mini", "unknown config argument 'size'; there are: variant, ablation"),
        ("ablation=all", "unknown ablation 'all'; there are: none, one"),
    ],
)
def test_unknown_arguments_list_the_choices(arg, message):
    with pytest.raises(ValueError, match=message):
        parse_arg(arg, {"one": {}})


def test_defaults_and_unknown_keys():
    config = MODULES["fer"].get_config()
    assert config.variant == "mini"
    with pytest.raises(AttributeError, match="learning_rat"):
        config.optimiser.learning_rat = 1.0


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
