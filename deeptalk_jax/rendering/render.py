"""Renders frames of a talking head, without a display or a system graphics library."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from deeptalk_jax.head.model import HeadModel
from deeptalk_jax.rendering.raster import interpolate, rasterise
from deeptalk_jax.rendering.shading import face_sums, linear_to_srgb8, shade, srgb_to_linear, vertex_normals

# Angle of the camera about the vertical axis, radians; positive angles show more of the head's left cheek.
VIEWS = {"front": 0.0, "three_quarter": 0.62}

_FIELD_OF_VIEW_RAD = 0.42
_BACKGROUND_TOP, _BACKGROUND_BOTTOM = np.float32([0.80, 0.83, 0.86]), np.float32([0.56, 0.60, 0.65])
_MARGIN = 1.04


@dataclass(frozen=True)
class Camera:
    """A pinhole camera at the height of its target, turned about the vertical axis.

    Attributes:
        target: `[3]` point in the centre of the picture, metres.
        distance_m: distance from the target.
        turn_rad: angle about the vertical axis; 0 is in front of the face.
        size: height and width of the picture in pixels.
    """

    target: np.ndarray
    distance_m: float
    turn_rad: float
    size: int

    @property
    def axes(self) -> np.ndarray:
        """`[3, 3]` matrix with rows right, up and towards the camera, in head axes."""
        c, s = np.cos(self.turn_rad), np.sin(self.turn_rad)
        return np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])

    def project(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Projects vertices `[v, 3]`, metres: column and row in pixels `[v, 2]`, and inverse depth `[v]` in 1/m.

        The inverse depth of vertices behind the camera is 0.
        """
        seen = (vertices - self.target) @ self.axes.T
        depth = self.distance_m - seen[:, 2]
        inverse = np.where(depth > 1e-3, 1.0 / np.maximum(depth, 1e-3), 0.0)
        focal = 0.5 * self.size / np.tan(0.5 * _FIELD_OF_VIEW_RAD)
        centre = 0.5 * (self.size - 1)
        screen = np.stack(
            [centre + focal * seen[:, 0] * inverse, centre - focal * seen[:, 1] * inverse], axis=-1
        )
        return screen, inverse


def frame_head(template: np.ndarray, size: int, view: str) -> Camera:
    """Returns a camera that shows the whole head and as much of the neck as fits.

    Args:
        template: `[v, 3]` neutral vertices, metres.
        size: side of the picture in pixels.
        view: a key of `VIEWS`.

    Raises:
        ValueError: The view is unknown.
    """
    if view not in VIEWS:
        raise ValueError(f"unknown view {view!r}; choose from {', '.join(VIEWS)}")
    low, high = template.min(axis=0), template.max(axis=0)
    height = min(high[1] - low[1], 0.262)  # metres; the end of a longer neck is not shown
    target = np.array([0.5 * (low[0] + high[0]), high[1] - 0.5 * height, 0.5 * (low[2] + high[2])])
    distance = 0.5 * height * _MARGIN / np.tan(0.5 * _FIELD_OF_VIEW_RAD) + 0.3 * (high[2] - low[2])
    return Camera(target, float(distance), VIEWS[view], size)


def background(size: int) -> np.ndarray:
    """Returns the background, `[size, size, 3]` uint8: a vertical gradient that is lighter behind the head."""
    row, column = np.mgrid[0:size, 0:size].astype(np.float32) / max(size - 1, 1)
    gradient = _BACKGROUND_TOP + (_BACKGROUND_BOTTOM - _BACKGROUND_TOP) * row[..., None]
    glow = np.exp(-((column - 0.5) ** 2 + (row - 0.4) ** 2) / 0.18)
    return np.round(255 * np.clip(gradient + 0.09 * glow[..., None], 0, 1)).astype(np.uint8)


def _downsample(image: np.ndarray) -> np.ndarray:
    height, width, channels = image.shape
    blocks = image.reshape(height // 2, 2, width // 2, 2, channels).astype(np.uint16)
    return ((blocks.sum(axis=(1, 3)) + 2) // 4).astype(np.uint8)


def interior_light(head: HeadModel, template: np.ndarray) -> np.ndarray | None:
    """Returns the share of light that reaches each vertex, `[v]`: the mouth interior darkens with depth.

    Returns None for heads without a mouth interior.
    """
    interior, lips = head.masks["mouth_interior"], head.masks["lips"]
    if not len(interior) or not len(lips):
        return None
    light = np.ones(len(template), np.float32)
    depth = template[lips, 2].max() - template[interior, 2]
    light[interior] = np.clip(1.12 - depth / 0.030, 0.10, 1.0)
    return light


def render_frames(
    head: HeadModel, vertices: np.ndarray, *, size: int = 512, view: str = "front", supersample: bool = False
) -> Iterator[np.ndarray]:
    """Renders vertex frames one at a time.

    Args:
        head: the head with its faces and colours; its neutral shape defines the camera.
        vertices: `[t, v, 3]` vertices of t frames, metres.
        size: side of the picture in pixels.
        view: "front" or "three_quarter".
        supersample: render at twice the size and average, which gives smoother edges at a quarter of the speed.

    Returns:
        An iterator over t pictures, `[size, size, 3]` uint8 RGB. Arguments are checked before the first picture.

    Raises:
        ValueError: The shape does not fit the head, the size is not positive, or the view is unknown.
    """
    vertices = np.asarray(vertices)
    if vertices.ndim != 3 or vertices.shape[1:] != (head.num_vertices, 3):
        raise ValueError(f"vertices have shape {vertices.shape}; expected [t, {head.num_vertices}, 3]")
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1 pixel")
    template = np.asarray(head.template)
    camera = frame_head(template, size * (2 if supersample else 1), view)
    return _render(head, vertices, template, camera, supersample)


def _render(
    head: HeadModel, vertices: np.ndarray, template: np.ndarray, camera: Camera, supersample: bool
) -> Iterator[np.ndarray]:
    canvas = background(camera.size).reshape(camera.size * camera.size, 3)
    albedo = srgb_to_linear(head.albedo)
    occlusion = interior_light(head, template)
    sums = face_sums(head.faces, head.num_vertices)
    axes = camera.axes.T.astype(np.float32)
    for frame in vertices:
        screen, inverse_depth = camera.project(frame)
        seen = rasterise(screen, inverse_depth, head.faces, (camera.size, camera.size))
        normals = vertex_normals(frame, head.faces, sums) @ axes
        # Light is computed at vertices and interpolated, because the mesh is finer than the shading on it.
        light = shade(normals, albedo, head.materials, occlusion)
        pixels = interpolate(seen, head.faces, light)
        image = canvas.copy()
        image[seen.pixel] = linear_to_srgb8(pixels)
        image = image.reshape(camera.size, camera.size, 3)
        yield _downsample(image) if supersample else image
