"""Visual speech network: imported weights, published size, receptive field and invalid inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.errors import ConfigError, UserError
from deeptalk_jax.interop.torch_file import read_torch_file
from deeptalk_jax.interop.visual_speech_file import load_visual_speech, visual_speech_from_state
from deeptalk_jax.models.visual_speech import LipReader, VisualSpeech


@pytest.fixture(scope="module")
def torch_files(request):
    return request.config.rootpath / "tests" / "goldens" / "torch_files"


@pytest.mark.parametrize("kind", ["swish", "prelu"])
def test_imported_weights_give_the_outputs_of_torch(torch_files, kind):
    model, variables = load_visual_speech(torch_files / f"visual_speech_{kind}.pt")
    assert (model.front_channels, model.channels, model.num_blocks, model.activation) == (
        3,
        (3, 5),
        (2, 1),
        kind,
    )
    golden = np.load(torch_files / f"visual_speech_{kind}.npz")
    features = jax.jit(model.apply)(variables, golden["frames"])
    np.testing.assert_allclose(features, golden["features"], rtol=1e-5, atol=1e-5)


def test_parameter_count_of_the_published_size():
    """The size is that of a ResNet-18 with another first layer and without classes: 11.2 million parameters."""
    shapes = jax.eval_shape(VisualSpeech().init, jax.random.key(0), jnp.zeros((1, 1, 88, 88)))
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in shapes.items()}
    resnet18, first_layer, classes = 11_689_512, 3 * 64 * 49 + 128, 512 * 1000 + 1000
    assert sizes["params"] == resnet18 - first_layer - classes + 5 * 49 * 64 + 128
    features = jax.eval_shape(VisualSpeech().apply, shapes, jnp.zeros((2, 5, 88, 88)))
    assert features.shape == (2, 5, 512)


def test_features_depend_on_five_frames_and_statistics_change_in_training_only():
    model = LipReader(VisualSpeech(3, (4,), (1,), "relu"), 6)
    frames = jax.random.uniform(jax.random.key(0), (1, 9, 17, 17))
    variables = model.init(jax.random.key(1), frames)
    apply = jax.jit(lambda x: model.apply(variables, x))
    changed = np.abs(apply(frames.at[0, 4].set(0.3)) - apply(frames)).max(axis=(0, 2))
    np.testing.assert_array_equal(changed > 0, [False, False, *[True] * 5, False, False])
    _, state = model.apply(variables, frames, train=True, mutable=["batch_stats"])
    for before, after in zip(
        *map(jax.tree.leaves, (variables["batch_stats"], state["batch_stats"])), strict=True
    ):
        assert np.abs(after - before).min() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("encoder.frontend.trunk.layer2.0.bn1.bias"), "no tensor .*layer2.0.bn1.bias"),
        (
            lambda s: s.update({"encoder.frontend.trunk.fc.weight": np.ones(3)}),
            "trunk.fc.weight', which has no place",
        ),
        (lambda s: s.pop("encoder.frontend.frontend3D.0.weight"), "0 tensors are named frontend3D.0.weight"),
        (
            lambda s: s.pop("encoder.frontend.trunk.layer1.0.conv1.weight"),
            "no tensor 'trunk.layer1.0.conv1.weight'",
        ),
    ],
)
def test_checkpoints_with_missing_or_unknown_tensors_are_rejected(torch_files, change, message):
    state = dict(read_torch_file(torch_files / "visual_speech_swish.pt"))
    change(state)
    with pytest.raises(UserError, match=message):
        visual_speech_from_state(state)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"activation": "gelu"}, "activation='gelu' is not one of"),
        ({"num_blocks": (1,)}, r"channels=\(64, 128, 256, 512\) and num_blocks=\(1,\) differ"),
    ],
)
def test_invalid_fields_are_rejected(fields, message):
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(VisualSpeech(**fields).init, jax.random.key(0), jnp.zeros((1, 1, 24, 24)))
