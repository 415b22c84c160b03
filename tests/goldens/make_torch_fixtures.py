"""Writes small PyTorch files and their reference numbers to torch_files/ (see README.md).

The tests do not run this script, because it needs PyTorch (also for the models of transformers), which the project does
not install.

    python3.11 -m venv /tmp/torchvenv
    /tmp/torchvenv/bin/pip install torch==2.13.0 transformers==5.23.0 numpy
    /tmp/torchvenv/bin/python tests/goldens/make_torch_fixtures.py
"""

import collections
import json
import sys
import types
from pathlib import Path

import numpy as np
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model

OUT = Path(__file__).parent / "torch_files"
TINY = {
    "num_hidden_layers": 2,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "conv_dim": [10] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
VARIANTS = {
    "base": {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False},
    "large": {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
}


class Setting:
    """Represents a class of a training framework that the reader does not load."""

    def __init__(self):
        self.width = 3


def write_tensors():
    torch.manual_seed(1)
    shared = torch.randn(4, 6)
    nested = collections.OrderedDict(
        float=torch.randn(3, 5),
        transposed=shared.t(),
        slice=shared[1:3, ::2],
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 7),
        parameter=torch.nn.Parameter(torch.randn(4)),
        double=torch.randn(2).double(),
        half=torch.randn(5).half(),
        bfloat16=torch.randn(5).bfloat16(),
        long=torch.arange(-2, 3),
        byte=torch.arange(3, dtype=torch.uint8),
        bool=torch.tensor([True, False, True]),
    )
    content = {"model": nested, "steps": [torch.ones(2), {"inner": torch.zeros(1)}], "epoch": 7, "args": None}
    torch.save(content, OUT / "tensors.pt")
    torch.save({"weight": torch.ones(3)}, OUT / "legacy.pt", _use_new_zipfile_serialization=False)
    Setting.__module__ = "omegaconf"
    sys.modules["omegaconf"] = types.SimpleNamespace(Setting=Setting)
    torch.save({"cfg": Setting(), "model": {"weight": torch.arange(3.0)}}, OUT / "with_config.pt")
    expected = {f"model.{name}": tensor.detach() for name, tensor in nested.items()}
    expected |= {"steps.0": torch.ones(2), "steps.1.inner": torch.zeros(1)}
    expected["model.bfloat16"] = expected["model.bfloat16"].float()
    np.savez_compressed(OUT / "tensors.npz", **{name: tensor.numpy() for name, tensor in expected.items()})


def write_wav2vec2():
    outputs = {}
    audio = (0.1 * np.random.default_rng(3).standard_normal((1, 5003)) + 0.02).astype(np.float32)
    normed = (audio - audio.mean()) / np.sqrt(audio.var() + 1e-7)
    for name, fields in VARIANTS.items():
        torch.manual_seed(2)
        model = Wav2Vec2Model(Wav2Vec2Config(**TINY, **fields)).eval()
        with torch.no_grad():
            for weight in model.parameters():  # Norms and biases start at 1 and 0, which would hide errors.
                weight.add_(0.1 * torch.randn_like(weight))
            outputs[name] = model(torch.from_numpy(normed)).last_hidden_state.numpy()
        folder = OUT / f"wav2vec2_{name}"
        folder.mkdir(exist_ok=True)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        config = {"model_type": "wav2vec2", **TINY, **fields}
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    np.savez_compressed(OUT / "wav2vec2.npz", audio=audio, **outputs)


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    write_tensors()
    write_wav2vec2()
