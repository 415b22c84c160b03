"""Computes attention biases and pooling under the names of the published reference arrays (tests/goldens/README.md)."""

import numpy as np

from deeptalk_jax.models.attention_bias import alibi_slopes, periodic_alibi, symmetric_alibi
from deeptalk_jax.models.gpo import GPO
from deeptalk_jax.models.positions import sinusoidal_positions
from tests.interop.published_outputs import quick_jit

GPO_LENGTHS = (1, 2, 5, 24, 63, 125, 250, 499, 500)


def mask_outputs():
    return {
        "alibi_future_h8_T24": symmetric_alibi(8, 24),
        "slopes_h8": np.array(alibi_slopes(8)),
        "slopes_h12": np.array(alibi_slopes(12)),
        "periodic25_h8_T80": periodic_alibi(8, 80, period=25),
        "periodic25_h8_row0_T1200": periodic_alibi(8, 1200, period=25)[:, 0],
    }


def gpo_outputs(part, pseudo):
    """Returns the pooled features and pooling weights of DEE's pools, with all lengths in one padded batch."""
    rows = np.zeros((len(GPO_LENGTHS), max(GPO_LENGTHS), 128), np.float32)
    for row, length in zip(rows, GPO_LENGTHS, strict=True):
        row[:length] = pseudo.pseudo_normal(f"gpo-{length}", (1, length, 128))[0]
    mask = np.arange(rows.shape[1])[None] < np.array(GPO_LENGTHS)[:, None]
    rows[~mask] = 9.0  # Padding must not change the result.

    @quick_jit
    def pool(params, rows, mask):
        gpo = {"params": params}
        return GPO().apply(gpo, rows, mask), GPO().apply(gpo, mask, method=GPO.weights)

    result = {"pe_32_L63": sinusoidal_positions(63, 32)}
    for tower, ours in (("audio", "audio_tower"), ("exp", "motion_tower")):
        for short, moment in (("mean", "mean"), ("std", "log_variance")):
            pooled, weights = pool(
                part.variables["params"][ours]["head"][f"{moment}_pool"]["gpo"], rows, mask
            )
            for row, length in enumerate(GPO_LENGTHS):
                result[f"{tower}_{short}_L{length}"] = np.asarray(pooled[row])
                result[f"{tower}_{short}_w_L{length}"] = np.asarray(weights[row, :length])
    return result
