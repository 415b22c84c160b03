"""PyTorch reference of a TH-VQVAE training step, for comparison in `benchmarks.vertex_loss`.

The model follows docs/method.md, section 3. Skinning is done as in smplx: identity and expression in one sum, 4 x 4
transforms, and all vertices of all frames, for prediction and target. The optimiser is AdamW. The module is imported
only if PyTorch is installed. The library itself never imports PyTorch.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from deeptalk_jax.head.model import HeadModel
from deeptalk_jax.models.attention_bias import alibi_slopes
from deeptalk_jax.types import EXPRESSION_DIM, MOTION_DIM

_HEADS, _DROPOUT, _CODES, _DIM = 8, 0.1, 256, 128
_SHAPE_DIM = 100  # identity coefficients, which the published training sets to zero
_DECAY, _COMMITMENT, _VERTEX_WEIGHT = 0.95, 0.25, 1e6
NUM_PARAMETERS = 2_932_789  # includes both codebooks and a linear layer that the published model never uses


class _Layer(nn.Module):
    """Post-norm transformer layer with a symmetric ALiBi bias."""

    def __init__(self, dim: int, mlp_dim: int):
        super().__init__()
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_dim), nn.GELU(), nn.Dropout(_DROPOUT), nn.Linear(mlp_dim, dim)
        )
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.drop = nn.Dropout(_DROPOUT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, dim = x.shape
        place = torch.arange(length, dtype=x.dtype)
        slopes = torch.tensor(alibi_slopes(_HEADS))[:, None, None]
        bias = -slopes * (place[:, None] - place[None]).abs()
        query, key, value = self.qkv(x).view(batch, length, 3, _HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, dropout_p=_DROPOUT if self.training else 0.0
        )
        mixed = self.out(mixed.transpose(1, 2).reshape(batch, length, dim))
        x = self.norms[0](x + self.drop(mixed))
        return self.norms[1](x + self.drop(self.mlp(x)))


class _Block(nn.Module):
    """Resampling by a factor of 2 in time, a linear layer and a transformer layer."""

    def __init__(self, inputs: int, dim: int, mlp_dim: int, expand: bool):
        super().__init__()
        if expand:
            self.resample = nn.ConvTranspose1d(inputs, dim, 5, 2, padding=2, output_padding=1)
        else:
            self.resample = nn.Conv1d(inputs, dim, 5, 2, padding=2, padding_mode="replicate")
        self.norm, self.linear = nn.BatchNorm1d(dim), nn.Linear(dim, dim)
        self.layer = _Layer(dim, mlp_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(functional.leaky_relu(self.resample(x.transpose(1, 2)), 0.2))
        return self.layer(self.linear(x.transpose(1, 2)))


class _Quantizer(nn.Module):
    """Vector quantizer whose codebook is updated by exponential moving averages of the latents."""

    def __init__(self, dim: int):
        super().__init__()
        bound = 1.0 / _CODES
        self.codes = nn.Parameter(torch.empty(_CODES, dim).uniform_(-bound, bound), requires_grad=False)
        self.register_buffer("count", torch.ones(_CODES))
        self.register_buffer("total", self.codes.detach().clone())

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = latents.detach().flatten(0, 1)
        distance = self.codes.square().sum(1) - 2.0 * rows @ self.codes.T
        choice = functional.one_hot(distance.argmin(1), _CODES).to(rows.dtype)
        codes = (choice @ self.codes).view_as(latents)
        commitment = _COMMITMENT * functional.mse_loss(latents, codes)
        with torch.no_grad():
            count = _DECAY * self.count + (1.0 - _DECAY) * choice.sum(0)
            self.count.copy_((count + 1e-5) / (len(rows) + _CODES * 1e-5) * len(rows))
            self.total.mul_(_DECAY).add_(choice.T @ rows, alpha=1.0 - _DECAY)
            self.codes.copy_(self.total / self.count[:, None])
        return latents + (codes - latents).detach(), commitment


class _MotionPrior(nn.Module):
    """TH-VQVAE."""

    def __init__(self):
        super().__init__()
        self.encoder_bottom = _Block(MOTION_DIM, _DIM, 2 * _DIM, expand=False)
        self.encoder_top = _Block(_DIM, _DIM, 2 * _DIM, expand=False)
        self.decoder_top = _Block(_DIM, _DIM, 2 * _DIM, expand=True)
        self.decoder_bottom = _Block(3 * _DIM, 3 * _DIM, 4 * _DIM, expand=True)
        self.quantizer_top, self.quantizer_bottom = _Quantizer(_DIM), _Quantizer(2 * _DIM)
        self.upsample_top = nn.ConvTranspose1d(_DIM, _DIM, 4, 2, padding=1)
        self.output = nn.Conv1d(3 * _DIM, MOTION_DIM, 5, padding=2)
        self.unused = nn.Linear(3 * _DIM, 3 * _DIM)

    def forward(self, motion: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        bottom = self.encoder_bottom(motion)
        codes_top, commitment_top = self.quantizer_top(self.encoder_top(bottom))
        joint = torch.cat([self.decoder_top(codes_top), bottom], dim=-1)
        codes_bottom, commitment_bottom = self.quantizer_bottom(joint)
        upsampled = self.upsample_top(codes_top.transpose(1, 2)).transpose(1, 2)
        decoded = self.decoder_bottom(torch.cat([upsampled, codes_bottom], dim=-1))
        return self.output(decoded.transpose(1, 2)).transpose(1, 2), commitment_top + commitment_bottom


class _Skin(nn.Module):
    """Linear blend skinning, `[f, 53]` motion frames to `[f, v, 3]` vertices in metres."""

    def __init__(self, head: HeadModel):
        super().__init__()
        for name in ("template", "joint_regressor", "skinning_weights"):
            self.register_buffer(name, torch.from_numpy(np.array(getattr(head, name))))
        shape = np.array(head.shape_directions)[..., :_SHAPE_DIM]
        directions = np.concatenate([shape, np.array(head.expression_directions)], axis=-1)
        self.register_buffer("directions", torch.from_numpy(directions))
        correctives = np.array(head.pose_directions)
        self.register_buffer("correctives", torch.from_numpy(correctives.reshape(len(correctives), -1)))
        self.parents = head.parents

    def forward(self, motion: torch.Tensor) -> torch.Tensor:
        frames, num_joints = len(motion), len(self.parents)
        identity = torch.zeros(frames, self.directions.shape[-1] - EXPRESSION_DIM)
        coefficients = torch.cat([identity, motion[:, :EXPRESSION_DIM]], dim=1)
        shaped = self.template + torch.einsum("fe,vce->fvc", coefficients, self.directions)
        joints = torch.einsum("fvc,jv->fjc", shaped, self.joint_regressor)
        pose = torch.zeros(frames, num_joints, 3)
        pose[:, 2] = motion[:, EXPRESSION_DIM:]
        rotations = _rotation_matrices(pose.reshape(-1, 3)).view(frames, num_joints, 3, 3)
        feature = (rotations[:, 1:] - torch.eye(3)).reshape(frames, -1)
        posed = shaped + (feature @ self.correctives).view(frames, -1, 3)
        transforms = self._relative_transforms(rotations, joints).view(frames, num_joints, 16)
        weights = self.skinning_weights.expand(frames, -1, -1)
        blended = torch.matmul(weights, transforms).view(frames, -1, 4, 4)
        homogeneous = functional.pad(posed, (0, 1), value=1.0)
        return torch.matmul(blended, homogeneous[..., None])[:, :, :3, 0]

    def _relative_transforms(self, rotations: torch.Tensor, joints: torch.Tensor) -> torch.Tensor:
        """Returns the transform of each joint relative to its rest pose, `[f, j, 4, 4]`."""
        offsets = joints.clone()
        offsets[:, 1:] -= joints[:, self.parents[1:]]
        local = functional.pad(torch.cat([rotations, offsets[..., None]], dim=-1), (0, 0, 0, 1))
        local[..., 3, 3] = 1.0
        chain = [local[:, 0]]
        for joint, parent in enumerate(self.parents[1:], start=1):
            chain.append(chain[parent] @ local[:, joint])
        world = torch.stack(chain, dim=1)
        moved = world @ functional.pad(joints, (0, 1))[..., None]
        return world - functional.pad(moved, (3, 0))


def _rotation_matrices(axis_angle: torch.Tensor) -> torch.Tensor:
    """Converts axis-angle `[f, 3]` to rotation matrices `[f, 3, 3]` by Rodrigues' formula."""
    angle = (axis_angle + 1e-8).norm(dim=1, keepdim=True)
    x, y, z = (axis_angle / angle).unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
    sine, cosine = angle.sin()[..., None], angle.cos()[..., None]
    return torch.eye(3) + sine * cross + (1.0 - cosine) * cross @ cross


def torch_step(
    head: HeadModel, motion: np.ndarray, target: np.ndarray, learning_rate: float
) -> Callable[[], float]:
    """Returns a function that takes one training step on `[b, t, 53]` motion and returns the loss.

    Args:
        head: Head model for the vertex loss.
        motion: `[b, t, 53]` input of the model.
        target: `[b, t, 53]` motion to reconstruct.
        learning_rate: Learning rate of AdamW.

    Raises:
        ValueError: The model does not have the published number of parameters.
    """
    torch.manual_seed(0)
    model, skin = _MotionPrior().train(), _Skin(head)
    if (found := sum(parameter.numel() for parameter in model.parameters())) != NUM_PARAMETERS:
        raise ValueError(f"the PyTorch model has {found} parameters; expected {NUM_PARAMETERS}")
    optimiser = torch.optim.AdamW(model.parameters(), learning_rate)
    motion, target = torch.from_numpy(motion), torch.from_numpy(target)

    def step() -> float:
        output, commitment = model(motion)
        error = skin(output.flatten(0, 1)) - skin(target.flatten(0, 1))
        loss = _VERTEX_WEIGHT * error.square().mean() + commitment
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return step
