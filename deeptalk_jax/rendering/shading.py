"""Light on skin, eyes and teeth: key, fill and rim lights and a soft highlight; per pixel, in linear light."""

import numpy as np

from deeptalk_jax.head.model import MATERIALS


def _unit(*xyz: float) -> np.ndarray:
    vector = np.asarray(xyz, np.float32)
    return vector / np.linalg.norm(vector)


# Directions towards the lights in camera axes (x right, y up, z to the camera), and their linear colours.
_KEY, _KEY_COLOUR = _unit(-0.55, 0.62, 0.75), np.float32([1.02, 0.97, 0.90])
_FILL, _FILL_COLOUR = _unit(0.85, 0.05, 0.60), np.float32([0.24, 0.28, 0.34])
_RIM_COLOUR = np.float32([0.20, 0.23, 0.28])
_SKY_COLOUR, _GROUND_COLOUR = np.float32([0.25, 0.26, 0.28]), np.float32([0.12, 0.10, 0.09])
_WRAP = 0.25  # light reaches a little past the terminator, as it does in skin

# (strength, exponent) of the highlight by material.
_HIGHLIGHT = {
    "skin": (0.10, 14.0),
    "lips": (0.22, 26.0),
    "eye_white": (0.55, 90.0),
    "iris": (1.1, 140.0),
    "pupil": (1.1, 140.0),
    "hair": (0.06, 10.0),
    "teeth": (0.35, 50.0),
    "tongue": (0.25, 30.0),
    "inner_mouth": (0.04, 20.0),
}
_STRENGTH = np.float32([_HIGHLIGHT[name][0] for name in MATERIALS])
_EXPONENT = np.float32([_HIGHLIGHT[name][1] for name in MATERIALS])


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals.

    Args:
        vertices: `[v, 3]`.
        faces: `[f, 3]` counter-clockwise from outside.

    Returns:
        `[v, 3]` float32; zero for vertices of no face.
    """
    corners = vertices[faces]
    weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    index = faces.ravel()
    sums = [
        np.bincount(index, weights=np.repeat(weighted[:, axis], 3), minlength=len(vertices))
        for axis in range(3)
    ]
    normals = np.stack(sums, axis=-1)
    return (normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-20)).astype(np.float32)


def srgb_to_linear(colour: np.ndarray) -> np.ndarray:
    """Display value to light, with the plain 2.2 power."""
    return np.power(colour, 2.2, dtype=np.float32)


def linear_to_srgb8(light: np.ndarray) -> np.ndarray:
    """Light `[..., 3]` to uint8 display values; bright light rolls off instead of clipping."""
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
    """Light leaving the surface towards the camera.

    Args:
        normals: `[p, 3]` float32 in camera axes, of about unit length.
        albedo: `[p, 3]` linear colour.
        material: `[p]` indices into `MATERIALS`.
        occlusion: `[p]` share of light that arrives, 0 to 1; None is all of it.

    Returns:
        `[p, 3]` float32 linear light.
    """
    normals = normals / np.maximum(np.sqrt(np.einsum("pc,pc->p", normals, normals)), 1e-6)[:, None]
    lights = normals @ np.stack([_KEY, _FILL, _unit(*(_KEY + np.float32([0, 0, 1])))], axis=1)  # [p, 3]
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
