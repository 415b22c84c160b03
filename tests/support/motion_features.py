"""The motion feature phi of `deeptalk_jax/head/gram.py`, written out in float64 NumPy as a reference for tests."""

import numpy as np
from scipy.spatial.transform import Rotation


def motion_features(motion: np.ndarray) -> np.ndarray:
    """Computes phi = [e, vec(R - I), vec(R - I) x [1, e, vec(R - I)]] of motion frames `[..., 53]`: `[..., 599]`."""
    expression, jaw = np.split(np.asarray(motion, np.float64), [50], axis=-1)
    offset = (Rotation.from_rotvec(jaw.reshape(-1, 3)).as_matrix() - np.eye(3)).reshape(*jaw.shape[:-1], 9)
    q = np.concatenate([np.ones_like(expression[..., :1]), expression, offset], axis=-1)
    products = np.einsum("...i,...j->...ij", offset, q).reshape(*jaw.shape[:-1], 9 * 60)
    return np.concatenate([expression, offset, products], axis=-1)
