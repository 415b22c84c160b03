"""Loads pretrained wav2vec 2.0 from a folder, a file or the Hugging Face hub, without PyTorch."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from deeptalk_jax.errors import UserError
from deeptalk_jax.interop.speech_names import wav2vec2_params
from deeptalk_jax.interop.torch_file import read_torch_file
from deeptalk_jax.models.speech.wav2vec2 import Wav2Vec2

_SAFETENSORS, _BIN = "model.safetensors", "pytorch_model.bin"
_CONFIG, _PROCESSOR = "config.json", "preprocessor_config.json"


def load_wav2vec2(name_or_dir: str | Path, **overrides: Any) -> tuple[Wav2Vec2, dict]:
    """Loads wav2vec 2.0 in the file layout of `transformers`.

    Args:
        name_or_dir: a folder with `config.json` and `model.safetensors` or `pytorch_model.bin`; a hub name such as
            `facebook/wav2vec2-base-960h`; or a file with weights of the base size. An existing folder or file takes
            precedence over a hub name.
        **overrides: fields of `Wav2Vec2` that the files do not define, such as `resample_to_hz=25.0`.

    Returns:
        The module and its variables, `{"params": ...}` with numpy arrays.

    Raises:
        UserError: Files are missing or do not fit, the configuration has an option that is not implemented, or the
            hub cannot be reached. The message is one line and names the folder or the hub name.
    """
    folder = Path(name_or_dir)
    if folder.is_file():
        model, state = Wav2Vec2(**overrides), _read_file(folder)
    else:
        folder = folder if folder.is_dir() else _download(str(name_or_dir))
        model = Wav2Vec2(**(_wav2vec2_fields(folder) | overrides))
        state = _read_weights(folder)
    prefix = "wav2vec2." if any(name.startswith("wav2vec2.") for name in state) else ""
    try:
        return model, {"params": wav2vec2_params(state, model, prefix=prefix)}
    except (UserError, ValueError) as error:  # Modules raise ValueError for invalid sizes.
        raise UserError(f"{folder}: {error}") from error


def _download(name: str) -> Path:
    """Downloads configuration and weights, as safetensors if available, and returns the local folder."""
    # Imported here because only this function needs it; it is a dependency of transformers.
    import huggingface_hub

    def fetch(*patterns):
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(patterns)))

    try:
        folder = fetch(_CONFIG, _PROCESSOR, _SAFETENSORS)
        return folder if (folder / _SAFETENSORS).is_file() else fetch(_CONFIG, _PROCESSOR, _BIN)
    except Exception as error:  # The hub client raises its own errors and those of several HTTP libraries.
        reason = str(error).strip().splitlines() or [""]
        raise UserError(
            f"{name!r} is not a local folder, and the download from the Hugging Face hub failed "
            f"({type(error).__name__}: {reason[0][:120]}); "
            f"pass a local folder with {_CONFIG} and {_SAFETENSORS} or {_BIN} instead"
        ) from error


def _read_weights(folder: Path) -> dict[str, np.ndarray]:
    for name in (_SAFETENSORS, _BIN):
        if (folder / name).is_file():
            return _read_file(folder / name)
    raise UserError(f"{folder}: the folder contains neither {_SAFETENSORS} nor {_BIN}; expected one of them")


def _read_file(path: Path) -> dict[str, np.ndarray]:
    if path.suffix != Path(_SAFETENSORS).suffix:
        return read_torch_file(path)
    import safetensors
    import safetensors.numpy

    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise UserError(f"{path}: the file is damaged: {error}") from error


def _wav2vec2_fields(folder: Path) -> dict[str, Any]:
    """Reads the fields of `Wav2Vec2` from `config.json`; missing entries get the defaults of `transformers`."""
    # Imported here because the import takes a second.
    from transformers import Wav2Vec2Config

    content = _read_json(folder / _CONFIG)
    try:
        config = Wav2Vec2Config(**content)
    except Exception as error:  # transformers raises its own error classes, with messages of several lines.
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / _CONFIG}: not a valid wav2vec 2.0 configuration ({reason})") from error
    needed = {
        "hidden_act": "gelu",
        "feat_extract_activation": "gelu",
        "add_adapter": False,
        "adapter_attn_dim": None,
        "model_type": "wav2vec2",
    }
    for name, value in needed.items():
        if getattr(config, name) != value:
            raise UserError(
                f"{folder / _CONFIG}: {name}={getattr(config, name)!r} is not supported; expected {value!r}"
            )
    if len(set(config.conv_dim)) != 1:
        raise UserError(
            f"{folder / _CONFIG}: conv_dim={config.conv_dim}; expected the same width for all layers"
        )
    fields = {
        "num_layers": config.num_hidden_layers,
        "dim": config.hidden_size,
        "num_heads": config.num_attention_heads,
        "mlp_dim": config.intermediate_size,
        "conv_channels": config.conv_dim[0],
        "kernels": tuple(config.conv_kernel),
        "strides": tuple(config.conv_stride),
        "conv_norm": config.feat_extract_norm,
        "conv_bias": config.conv_bias,
        "stable_layer_norm": config.do_stable_layer_norm,
        "positional_kernel": config.num_conv_pos_embeddings,
        "positional_groups": config.num_conv_pos_embedding_groups,
        "norm_eps": config.layer_norm_eps,
        "dropout_rate": config.hidden_dropout,
        "attention_dropout_rate": config.attention_dropout,
        "activation_dropout_rate": config.activation_dropout,
        "projection_dropout_rate": config.feat_proj_dropout,
        "layer_drop_rate": config.layerdrop,
    }
    if (folder / _PROCESSOR).is_file() and not _read_json(folder / _PROCESSOR).get("do_normalize", True):
        fields["waveform_eps"] = None
    return fields


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: contains a {type(content).__name__}; expected a JSON object")
    return content
