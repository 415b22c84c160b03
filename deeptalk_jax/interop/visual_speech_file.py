"""Loads the encoder of published lip-reading checkpoints (LRS3 and related) as `models.visual_speech.VisualSpeech`.

| tensor (behind any prefix, such as `encoder.frontend.`) | variable |
| --- | --- |
| `frontend3D.0.weight` | `front_conv/kernel` |
| `frontend3D.1.{weight,bias,running_mean,running_var}` | `front_norm/{scale,bias,mean,variance}` |
| `frontend3D.2.weight` (PReLU only) | `front_activation/slope` |
| `trunk.layer{s+1}.{i}.conv{1,2}.weight` | `stage{s}_block{i}/conv{1,2}/kernel` |
| `trunk.layer{s+1}.{i}.bn{1,2}.*` | `stage{s}_block{i}/norm{1,2}/*` |
| `trunk.layer{s+1}.{i}.relu{1,2}.weight` (PReLU only) | `stage{s}_block{i}/activation{1,2}/slope` |
| `trunk.layer{s+1}.{i}.downsample.0.weight` | `stage{s}_block{i}/shortcut/kernel` |
| `trunk.layer{s+1}.{i}.downsample.1.*` | `stage{s}_block{i}/shortcut_norm/*` |

Means and variances are in `batch_stats`, all other variables in `params`. Tensors outside the prefix (the transformer
on top of the features, the decoder) are ignored. The sizes of the model follow from the file. Swish and ReLU have no
tensors, so the caller must name the activation of a checkpoint without PReLU slopes. The names follow the
documentation and loaders of this family of checkpoints; they are not tested with a published file.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from deeptalk_jax.errors import UserError
from deeptalk_jax.interop.torch_file import read_torch_file
from deeptalk_jax.interop.torch_places import (
    Place,
    Places,
    PyTree,
    State,
    as_is,
    batch_norm,
    fill,
    shapes_of,
    strip_prefix,
)
from deeptalk_jax.models.visual_speech import VisualSpeech

_ANCHOR = "frontend3D.0.weight"
_UNUSED = {"*.num_batches_tracked": "number of training steps, used only with momentum=None"}


def load_visual_speech(path: str | Path, *, activation: str = "swish") -> tuple[VisualSpeech, PyTree]:
    """Loads an encoder from a PyTorch file without running code from it.

    Args:
        path: a file written by `torch.save` with the whole lip reader or with its encoder only.
        activation: "swish" (the published LRS3 model) or "relu", used for files without PReLU slopes.

    Returns:
        The module and its variables, `params` and `batch_stats`, as numpy arrays.

    Raises:
        UserError: The file cannot be read or contains no such encoder, or tensors are missing, left over or of the
            wrong shape.
    """
    state = read_torch_file(path)
    try:
        return visual_speech_from_state(state, activation=activation)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def visual_speech_from_state(state: State, *, activation: str = "swish") -> tuple[VisualSpeech, PyTree]:
    """Builds an encoder from tensors by name; otherwise as `load_visual_speech`."""
    anchors = [name for name in state if name == _ANCHOR or name.endswith(f".{_ANCHOR}")]
    if len(anchors) != 1:
        raise UserError(f"{len(anchors)} tensors are named {_ANCHOR}; expected exactly one encoder")
    prefix = anchors[0].removesuffix(_ANCHOR)
    state = strip_prefix(state, prefix)
    model = _model_of_size(state, activation)
    frames = jax.ShapeDtypeStruct((1, 1, 88, 88), jnp.float32)
    shapes = shapes_of(jax.eval_shape(model.init, jax.random.key(0), frames))
    return model, fill(state, visual_speech_places(model), _UNUSED, shapes, prefix=prefix)


def _model_of_size(state: State, activation: str) -> VisualSpeech:
    channels, num_blocks = [], []
    while (first := f"trunk.layer{len(channels) + 1}.0.conv1.weight") in state:
        stage = len(channels) + 1
        channels.append(len(state[first]))
        num_blocks.append(1)
        while f"trunk.layer{stage}.{num_blocks[-1]}.conv1.weight" in state:
            num_blocks[-1] += 1
    if not channels:
        raise UserError("the encoder has no tensor 'trunk.layer1.0.conv1.weight'")
    kind = "prelu" if "frontend3D.2.weight" in state else activation
    return VisualSpeech(len(state[_ANCHOR]), tuple(channels), tuple(num_blocks), activation=kind)


def visual_speech_places(model: VisualSpeech) -> Places:
    """Returns the places of the encoder's tensors, for a model of this size."""
    slopes = model.activation == "prelu"
    places = {
        "frontend3D.0.weight": Place((("params", "front_conv", "kernel"),), _frames_as_channels),
        **batch_norm("frontend3D.1", "front_norm"),
        **(_slope("frontend3D.2", "front_activation") if slopes else {}),
    }
    before = model.front_channels
    for stage, (channels, depth) in enumerate(zip(model.channels, model.num_blocks, strict=True)):
        for index in range(depth):
            torch_name, flax_path = f"trunk.layer{stage + 1}.{index}", f"stage{stage}_block{index}"
            for part in (1, 2):
                places |= _conv(f"{torch_name}.conv{part}", flax_path, f"conv{part}")
                places |= batch_norm(f"{torch_name}.bn{part}", flax_path, f"norm{part}")
                if slopes:
                    places |= _slope(f"{torch_name}.relu{part}", flax_path, f"activation{part}")
            if index == 0 and (stage > 0 or before != channels):
                places |= _conv(f"{torch_name}.downsample.0", flax_path, "shortcut")
                places |= batch_norm(f"{torch_name}.downsample.1", flax_path, "shortcut_norm")
        before = channels
    return places


def _kernel(tensor: np.ndarray) -> list[np.ndarray]:
    """Converts `[out, in, ...]` to `[..., in, out]`."""
    return [np.moveaxis(tensor, (0, 1), (-1, -2))]


def _frames_as_channels(tensor: np.ndarray) -> list[np.ndarray]:
    """Converts `[out, 1, t, h, w]` to `[h, w, t, out]`: frames become input channels of a 2-D convolution."""
    if tensor.ndim != 5 or tensor.shape[1] != 1:
        raise ValueError("expected a 3-D convolution with one input channel")
    return [tensor[:, 0].transpose(2, 3, 1, 0)]


def _conv(torch_name: str, *flax_path: str) -> Places:
    return {f"{torch_name}.weight": Place((("params", *flax_path, "kernel"),), _kernel)}


def _slope(torch_name: str, *flax_path: str) -> Places:
    return {f"{torch_name}.weight": Place((("params", *flax_path, "slope"),), as_is)}
