"""Writes torch_files/visual_speech_*.pt and .npz: small encoders with random weights, and their outputs in PyTorch.

The tests do not run this script, because it needs PyTorch (2.13.0), which the project does not install.

    python tests/goldens/make_visual_speech.py
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

OUT = Path(__file__).parent / "torch_files"
FRONT, CHANNELS, BLOCKS = 3, (3, 5), (2, 1)


def activation(kind, channels):
    return nn.PReLU(channels) if kind == "prelu" else nn.SiLU()


class Block(nn.Module):
    """A residual block with the parameter names of torchvision."""

    def __init__(self, before, channels, stride, kind):
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = activation(kind, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = activation(kind, channels)
        self.downsample = None
        if stride != 1 or before != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + (x if self.downsample is None else self.downsample(x)))


class Encoder(nn.Module):
    """A 3-D convolution, followed by a residual network on each frame."""

    def __init__(self, kind):
        super().__init__()
        self.frontend3D = nn.Sequential(
            nn.Conv3d(1, FRONT, (5, 7, 7), (1, 2, 2), (2, 3, 3), bias=False),
            nn.BatchNorm3d(FRONT),
            activation(kind, FRONT),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )
        self.trunk = nn.Module()
        before = FRONT
        for stage, (channels, depth) in enumerate(zip(CHANNELS, BLOCKS, strict=True)):
            blocks = [
                Block(before if i == 0 else channels, channels, 2 if stage and not i else 1, kind)
                for i in range(depth)
            ]
            setattr(self.trunk, f"layer{stage + 1}", nn.Sequential(*blocks))
            before = channels

    def forward(self, frames):
        batch, time = frames.shape[:2]
        x = self.frontend3D(((frames - 0.421) / 0.165)[:, None])
        x = x.transpose(1, 2).flatten(0, 1)
        for stage in range(len(CHANNELS)):
            x = getattr(self.trunk, f"layer{stage + 1}")(x)
        return x.mean(dim=(2, 3)).unflatten(0, (batch, time))


def main():
    for kind, prefix in (("swish", "encoder.frontend."), ("prelu", "")):
        torch.manual_seed(3)
        model = Encoder(kind)
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif "num_batches" not in name:
                tensor.add_(0.2 * torch.randn_like(tensor))
        model.eval()
        frames = torch.rand(2, 4, 22, 26)
        with torch.no_grad():
            features = model(frames)
        state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
        if prefix:
            state["encoder.embed.0.weight"] = torch.ones(2, 5)  # belongs to the network on top of the encoder
        torch.save(state, OUT / f"visual_speech_{kind}.pt")
        np.savez_compressed(
            OUT / f"visual_speech_{kind}.npz", frames=frames.numpy(), features=features.numpy()
        )


if __name__ == "__main__":
    main()
