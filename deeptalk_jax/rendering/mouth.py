"""The mouth as a lip-reading network sees it: a grey crop that follows the lips, differentiable in the motion.

Published lip readers are fed 88 x 88 crops around the lips of aligned faces, in which a closed mouth takes a little
more than half the width. Here nothing need be detected or aligned: the head's own lip vertices give the middle of each
frame, and the size of the crop is fixed by the neutral head, so that a mouth that widens looks wider (SPEC section 4).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from deeptalk_jax.head.lbs import motion_vertices
from deeptalk_jax.head.model import HeadModel
from deeptalk_jax.head.subset import head_subset
from deeptalk_jax.rendering.differentiable import draw
from deeptalk_jax.rendering.gather import add_rows, take_rows
from deeptalk_jax.rendering.render import interior_light
from deeptalk_jax.rendering.shading import srgb_to_linear
from deeptalk_jax.rendering.visibility import Edges, mesh_edges
from deeptalk_jax.types import Array

MOUTH_CROP_SIZE = 88

_CROP_PER_LIPS = 1.8  # width of the crop over that of the neutral lips
_DISTANCE_M = 0.5  # of the camera from the lips
_REACH_M = 0.1  # depths told apart, to both sides of the lips
_MARGIN = 1.1  # of the region that is drawn, over the crop
_DEEPEST_M = 0.06  # behind the middle of the lips
_AWAY = -0.5  # faces whose neutral normal points further away than this (cosine) are never seen
_BACKGROUND = 0.06  # what is behind the mouth of a head without inside
_LIGHT = np.float32([-0.30, 0.50, 0.81])  # direction, camera axes, unit length
_AMBIENT, _DIFFUSE, _WRAP = 0.30, 0.75, 0.25
_LUMA = np.float32([0.2126, 0.7152, 0.0722])
_GAMMA = 1.0 / 2.2


class MouthRenderer(NamedTuple):
    """What of a head is drawn. Made by `mouth_renderer`; constant under jit.

    Attributes:
        head: the vertices around the mouth, v of them with the stand-ins of the joints.
        vertices: `[n]` which vertices of the whole head they are; n = v - 5.
        faces: `[f, 3]`.
        edges: of the faces.
        reflectance: `[n]` share of light that comes back, linear.
        crop_width_m: at the distance of the lips.
        size: side of the picture in pixels.
    """

    head: HeadModel
    vertices: np.ndarray
    faces: np.ndarray
    edges: Edges
    reflectance: np.ndarray
    crop_width_m: float
    size: int

    def from_motion(self, motion: Float[Array, "*b t 53"]) -> Float[Array, "*b t size size"]:
        """Pictures of motion frames; see `from_vertices`."""
        return self._frames(motion, 1, lambda frame: motion_vertices(self.head, frame)[: len(self.vertices)])

    def from_vertices(self, vertices: Float[Array, "*b t w 3"]) -> Float[Array, "*b t size size"]:
        """Pictures of frames of the whole head.

        Args:
            vertices: of the head that the renderer was made for, w of them, metres. Frames are drawn one after the
                other, all leading axes at once, so that a batch that is split over devices stays where it is.

        Returns:
            Grey, about 0 to 1, display values. Differentiable but for the order in depth.
        """
        return self._frames(vertices, 2, lambda frame: frame[self.vertices])

    def _frames(self, frames: Array, frame_ndim: int, place: Callable[[Array], Array]) -> Array:
        """Draws frame after frame along the last leading axis, the axes before it at once."""

        def picture(frame):
            return self._picture(place(frame))

        time_axis = frames.ndim - frame_ndim - 1
        for _ in range(time_axis):
            picture = jax.vmap(picture)
        pictures = jax.lax.map(picture, jnp.moveaxis(frames, time_axis, 0))
        return jnp.moveaxis(pictures, 0, time_axis)

    def _picture(self, vertices: Float[Array, "n 3"]) -> Float[Array, "size size"]:
        screen, nearness = self.project(vertices)
        shade = self.shade(vertices)
        return draw(screen, nearness, shade, self.faces, self.edges, size=self.size, background=_BACKGROUND)

    def project(self, vertices: Float[Array, "n 3"]) -> tuple[Float[Array, "n 2"], Float[Array, " n"]]:
        """Column and row in pixels, and nearness in [0, 1], through a pinhole in front of the middle of the lips."""
        lips = jnp.mean(vertices[self.head.masks["lips"]], axis=0)
        x, y, z = jnp.moveaxis(vertices - lips[None, :], -1, 0)
        inverse = 1.0 / (_DISTANCE_M - z)
        focal = self.size * _DISTANCE_M / self.crop_width_m
        middle = 0.5 * (self.size - 1)
        screen = jnp.stack([middle + focal * x * inverse, middle - focal * y * inverse], axis=-1)
        far, near = 1.0 / (_DISTANCE_M + _REACH_M), 1.0 / (_DISTANCE_M - _REACH_M)
        return screen, (inverse - far) / (near - far)

    def shade(self, vertices: Float[Array, "n 3"]) -> Float[Array, " n"]:
        """Display grey of every vertex: one light from above beside the camera, and some from everywhere."""
        corners = take_rows(vertices, self.faces)
        turned = jnp.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = add_rows(turned, self.faces, len(self.vertices))
        length = jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(normals), axis=-1), 1e-24))
        facing = jnp.sum(normals * _LIGHT[None, :], axis=-1) / length
        light = _AMBIENT + _DIFFUSE * jnp.maximum((facing + _WRAP) / (1.0 + _WRAP), 0.0)
        return (self.reflectance * light) ** _GAMMA


def mouth_renderer(head: HeadModel, size: int = MOUTH_CROP_SIZE) -> MouthRenderer:
    """Chooses what of a head is drawn, once: the faces that a camera in front may see within the crop.

    Args:
        head: any head whose mask `lips` is not empty; for another identity bake its shape into the template.
        size: side of the pictures in pixels.

    Raises:
        ValueError: the head has no lips, or the size is not positive.
    """
    lips = head.masks["lips"]
    if len(lips) == 0:
        raise ValueError(f"head {head.name!r} has no lips to look at")
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1 pixel")
    template = np.asarray(head.template)
    chosen = _faces_around_mouth(head, template)
    vertices = np.union1d(chosen, lips)
    faces = np.searchsorted(vertices, chosen).astype(np.int32)
    grey = srgb_to_linear(head.albedo[vertices]) @ _LUMA
    light = interior_light(head, template)
    return MouthRenderer(
        head=head_subset(head, vertices),
        vertices=vertices,
        faces=faces,
        edges=mesh_edges(faces),
        reflectance=grey if light is None else grey * light[vertices],
        crop_width_m=_crop_width_m(template, lips),
        size=size,
    )


def _crop_width_m(template: np.ndarray, lips: np.ndarray) -> float:
    return float(_CROP_PER_LIPS * np.ptp(template[lips, 0]))


def _faces_around_mouth(head: HeadModel, template: np.ndarray) -> Int[np.ndarray, "g 3"]:
    """Faces near the neutral crop that do not look away."""
    lips = head.masks["lips"]
    half = 0.5 * _MARGIN * _crop_width_m(template, lips)
    x, y, z = (template - template[lips].mean(axis=0)).T
    inside = (np.abs(x) < half) & (np.abs(y) < half) & (z > -_DEEPEST_M)
    corners = template[head.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    towards = normals[:, 2] > _AWAY * np.linalg.norm(normals, axis=1)
    return head.faces[inside[head.faces].any(axis=1) & towards]
