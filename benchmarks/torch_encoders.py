"""PyTorch reference of the two speech encoders, with random weights, for comparison in `benchmarks.inference`.

wav2vec2 comes from transformers; emotion2vec is implemented here after docs/method.md, section 7. The module is
imported only if PyTorch is installed. The library itself never imports PyTorch.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import Wav2Vec2Config, Wav2Vec2Model

from deeptalk_jax.types import SAMPLES_PER_FRAME

_KERNELS, _STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
_DIM, _HEADS, _EXTRA_TOKENS, _DEPTH = 768, 12, 10, 12


class _OverChannels(nn.LayerNorm):
    """Layer norm over the channels of `[b, d, s]`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class _Block(nn.Module):
    """Post-norm transformer layer with an additive attention bias."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(_DIM, 3 * _DIM), nn.Linear(_DIM, _DIM)
        self.mlp = nn.Sequential(nn.Linear(_DIM, 4 * _DIM), nn.GELU(), nn.Linear(4 * _DIM, _DIM))
        self.norms = nn.ModuleList([nn.LayerNorm(_DIM), nn.LayerNorm(_DIM)])

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        query, key, value = self.qkv(x).view(batch, length, 3, _HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        x = self.norms[0](x + self.out(mixed.transpose(1, 2).reshape(batch, length, _DIM)))
        return self.norms[1](x + self.mlp(x))


class _Emotion2Vec(nn.Module):
    """emotion2vec base without its decoder, `[b, s]` samples to `[b, s, 768]` features at 50 Hz."""

    def __init__(self):
        super().__init__()
        layers = []
        for number, (kernel, stride) in enumerate(zip(_KERNELS, _STRIDES, strict=True)):
            layers += [
                nn.Conv1d(512 if number else 1, 512, kernel, stride, bias=False),
                _OverChannels(512),
                nn.GELU(),
            ]
        self.frontend = nn.Sequential(*layers)
        self.project = nn.Sequential(nn.LayerNorm(512), nn.Linear(512, _DIM))
        branch = []
        for _ in range(5):
            branch += [
                nn.Conv1d(_DIM, _DIM, 19, padding=9, groups=16),
                _OverChannels(_DIM, elementwise_affine=False),
                nn.GELU(),
            ]
        self.positions = nn.Sequential(*branch)
        self.tokens = nn.Parameter(torch.zeros(1, _EXTRA_TOKENS, _DIM))
        self.norm = nn.LayerNorm(_DIM)
        self.blocks = nn.ModuleList([_Block() for _ in range(_DEPTH)])

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        x = self.project(self.frontend(waveform[:, None]).transpose(1, 2))
        x = x + self.positions(x.transpose(1, 2)).transpose(1, 2)
        place = torch.arange(x.shape[1], dtype=x.dtype)
        distance = (place[:, None] - place[None]).abs()
        slopes = 2.0 ** -torch.arange(1.0, _HEADS + 1)  # the values do not affect the speed
        bias = functional.pad(-slopes[:, None, None] * distance, (_EXTRA_TOKENS, 0, _EXTRA_TOKENS, 0))
        x = self.norm(torch.cat([self.tokens.expand(len(x), -1, -1), x], dim=1))
        for block in self.blocks:
            x = block(x, bias)
        return x[:, _EXTRA_TOKENS:]


def torch_encoders(audio: np.ndarray) -> Callable[[], None]:
    """Returns a function that runs both encoders on `[b, s]` samples.

    As in DEEPTalk, the convolution features of wav2vec2 are resampled from 50 to 25 Hz before its transformer
    (docs/method.md, section 4).
    """
    content, emotion = Wav2Vec2Model(Wav2Vec2Config()).eval(), _Emotion2Vec().eval()
    waveform = torch.from_numpy(audio)
    num_frames = audio.shape[1] // SAMPLES_PER_FRAME

    def run() -> None:
        with torch.inference_mode():
            features = content.feature_extractor(waveform)
            features = functional.interpolate(features, num_frames, mode="linear", align_corners=True)
            projected, _ = content.feature_projection(features.transpose(1, 2))
            content.encoder(projected)
            emotion(waveform)

    return run
