"""Parameter counts of the published sizes (docs/method.md, section 8)."""

import jax
import numpy as np
import pytest

from configs import dee, deeptalk, fer, motion_prior
from deeptalk_jax.assembly import build
from deeptalk_jax.training.optimiser import make_optimiser, split_frozen


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def trained_numbers(config, params):
    """Returns the number of trained parameters; checks that Adam's state has twice as many numbers and two counters."""
    trained, _ = split_frozen(params, config.optimiser.frozen)
    optimiser = make_optimiser(config.optimiser, config.num_steps)
    assert count(jax.eval_shape(optimiser.init, trained)) == 2 * count(trained) + 2
    return count(trained)


def shapes(init):
    return jax.eval_shape(init, jax.random.key(0))


@pytest.fixture(scope="module")
def fer_model():
    return build.build_fer(fer.get_config("variant=base"))


def test_parameter_count_of_fer(fer_model):
    params = shapes(lambda key: build.init_fer(fer_model, key))["params"]
    assert count(params) == 1_374_024
    # The published feature path has no batch norm and ends before the layer from 128 to 64 channels.
    path = [params[f"dense_{index}"] for index in range(6)]
    assert count(path) == 1_359_744
    assert fer_model.feature_dim == 128


def test_parameter_counts_of_the_motion_prior():
    model = build.build_motion_prior(motion_prior.get_config("variant=base"))
    variables = shapes(lambda key: build.init_motion_prior(model, key))
    sizes = {name: count(tree) for name, tree in variables["params"].items()}
    unused_linear = 384 * 384 + 384  # layer of the published decoder that has no effect on its output
    assert sizes["encoder_top"] == sizes["decoder_top"] == 231_296
    assert sizes["encoder_bottom"] == 183_296
    assert sizes["upsample_top"] == 65_664
    assert sizes["decoder_bottom"] + sizes["output"] == 2_122_933 - unused_linear
    codebooks = [variables["codebook"][f"quantizer_{level}"]["embedding"] for level in ("top", "bottom")]
    assert count(codebooks) == 98_304


def test_parameter_counts_of_dee(fer_model):
    config = dee.get_config("variant=base")
    model = build.build_dee(config)
    params = shapes(lambda key: build.init_dee(model, fer_model.feature_dim, key))["params"]
    sizes = {name: count(tree) for name, tree in params.items()}
    template_768 = 4 * (768**2 + 768) + 2 * 768 * 2048 + 2048 + 768 + 4 * 768
    template_512 = 4 * (512**2 + 512) + 2 * 512 * 2048 + 2048 + 512 + 4 * 512
    pretraining_decoder = 619_776
    # Each published tower contains three unused layers, from which its layers were copied.
    assert sizes["speech_encoder"] == 93_790_988 - pretraining_decoder
    assert (
        sizes["speech_encoder"] + sizes["audio_tower"] == 132_611_148 - 3 * template_768 - pretraining_decoder
    )
    assert sizes["motion_map"] + sizes["motion_tower"] == 34_899_008 - 3 * template_512
    assert sizes["scale"] + sizes["shift"] == 2
    # Parameters with a gradient in the reference training, without the unused layers.
    assert trained_numbers(config, params) == 87_894_914 - 25_999_104


def test_parameter_counts_of_the_generator():
    config = deeptalk.get_config("variant=base")
    model = build.build_generator(config, motion_prior.get_config("variant=base"))
    params = shapes(lambda key: build.init_predictor(model, 128, key))["params"]
    sizes = {name: count(tree) for name, tree in params.items()}
    unused_linear = 5_632
    assert trained_numbers(config, params) == 5_680_640 - unused_linear
    mask_embedding = 768  # used in the pre-training of wav2vec2 only
    assert sizes.pop("speech_encoder") == 94_371_712 - mask_embedding
    assert sizes == {
        "face_transformer": 395_776,
        "face_map": 32_896,
        "predictor_top": 2_571_776,
        "predictor_bottom": 2_539_008,
        "content_map": 98_432,
        "emotion_map": 16_512,
        "style_map": 20_608,
    }
