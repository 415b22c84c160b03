"""Shading of skin, eyes and teeth with key, fill and rim lights, sky light and a highlight, in linear light."""

import numpy as np
from scipy.sparse import csr_matrix

from deeptalk_jax.head.model import MATERIALS


def _unit(*xyz: float) -> np.ndarray:
    vector = np.asarray(xyz, np.float32)
    return vector / np.linalg.norm(vector)


# Directions towards the lights in camera axes (x right, y up, z towards the camera), and the lights' linear colours.
_KEY, _KEY_COLOUR = _unit(-0.55, 0.62, 0.75), np.float32([1.02, 0.97, 0.90])
_FILL, _FILL_COLOUR = _unit(0.85, 0.05, 0.60), np.float32([0.24, 0.28, 0.34])
_RIM_COLOUR = np.float32([0.20, 0.23, 0.28])
_SKY_COLOUR, _GROUND_COLOUR = np.float32([0.25, 0.26, 0.28]), np.float32([0.12, 0.10, 0.09])
_WRAP = 0.25  # wrap lighting: light reaches slightly beyond the terminator, as it does in skin

# (strength, exponent) of the highlight of each material.
_HIGHLIGHT = {
    "skin": (0.09, 14.0),
    "lips": (0.16, 24.0),
    "eye_white": (0.35, 60.0),
    "iris": (0.8, 60.0),
    "pupil": (0.8, 60.0),
    "hair": (0.05, 10.0),
    "teeth": (0.25, 40.0),
    "tongue": (0.2, 24.0),
    "inner_mouth": (0.03, 20.0),
}
_STRENGTH = np.float32([_HIGHLIGHT[name][0] for name in MATERIALS])
_EXPONENT = np.float32([_HIGHLIGHT[name][1] for name in MATERIALS])


def face_sums(faces: np.ndarray, num_vertices: int) -> csr_matrix:
    """Returns the sparse matrix `[v, f]` that sums values of faces at their vertices."""
    columns = np.repeat(np.arange(len(faces)), 3)
    return csr_matrix((np.ones(faces.size, np.float32), (faces.ravel(), columns)), (num_vertices, len(faces)))


def vertex_normals(vertices: np.ndarray, faces: np.ndarray, sums: csr_matrix) -> np.ndarray:
    """Computes area-weighted unit normals.

    Args:
        vertices: `[v, 3]` metres.
        faces: `[f, 3]` vertex indices, counter-clockwise as seen from outside.
        sums: `face_sums` of these faces.

    Returns:
        `[v, 3]` float32; zero for vertices without a face.
    """
    x, y, z = vertices.astype(np.float32).T
    a, b, c = faces.T
    ux, uy, uz, wx, wy, wz = (v[end] - v[a] for end in (b, c) for v in (x, y, z))
    weighted = np.stack([uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx], axis=1)
    normals = sums @ weighted
    return normals / np.maximum(np.sqrt(np.einsum("vc,vc->v", normals, normals)), 1e-20)[:, None]


def srgb_to_linear(colour: np.ndarray) -> np.ndarray:
    """Converts display values to linear light with a power of 2.2."""
    return np.power(colour, 2.2, dtype=np.float32)


def linear_to_srgb8(light: np.ndarray) -> np.ndarray:
    """Converts linear light `[..., 3]` to uint8 display values; bright values are compressed instead of clipped."""
    table_size = 4096
    index = np.clip(light * (table_size / 2.0), 0, table_size - 1).astype(np.int32)
    return _display_table(table_size)[index]


_TABLES: dict[int, np.ndarray] = {}


def _display_table(table_size: int) -> np.ndarray:
    if table_size not in _TABLES:
        light = (np.arange(table_size) + 0.5) * 2.0 / table_size
        rolled = np.where(light < 0.7, light, 0.7 + 0.3 * np.tanh((light - 0.7) / 0.3))
        _TABLES[table_size] = np.round(255.0 * np.clip(rolled, 0, 1) ** (1 / 2.2)).astype(np.uint8)
    return _TABLES[table_size]


def shade(
    normals: np.ndarray, albedo: np.ndarray, material: np.ndarray, occlusion: np.ndarray | None
) -> np.ndarray:
    """Computes the light that the surface reflects towards the camera.

    Args:
        normals: `[v, 3]` float32 unit normals in camera axes.
        albedo: `[v, 3]` linear colour.
        material: `[v]` indices into `MATERIALS`.
        occlusion: `[v]` share of light that reaches each vertex, 0 to 1; None means 1 everywhere.

    Returns:
        `[v, 3]` float32 linear light.
    """
    lights = normals @ np.stack([_KEY, _FILL, _unit(*(_KEY + np.float32([0, 0, 1])))], axis=1)  # [v, 3]
    key = np.maximum((lights[:, 0] + _WRAP) / (1.0 + _WRAP), 0.0)
    fill = np.maximum(lights[:, 1], 0.0)
    facing = np.clip(normals[:, 2], 0.0, 1.0)
    rim = (1.0 - facing) ** 3
    up = 0.5 + 0.5 * normals[:, 1]
    coefficients = np.stack([key, fill, rim, up, 1.0 - up], axis=1).astype(np.float32)
    colours = np.stack([_KEY_COLOUR, _FILL_COLOUR, _RIM_COLOUR, _SKY_COLOUR, _GROUND_COLOUR])
    light = albedo * (coefficients @ colours)
    glint = _STRENGTH[material] * np.maximum(lights[:, 2], 1e-6) ** _EXPONENT[material]
    light += glint[:, None]
    return light if occlusion is None else light * occlusion[:, None]
