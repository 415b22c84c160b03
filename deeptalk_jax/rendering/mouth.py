"""Mouth crops, the input of lip-reading networks: grey pictures that follow the lips, differentiable in the motion.

Published lip readers take 88 x 88 crops around the lips of aligned faces, in which a closed mouth fills a little more
than half the width. Here, no detection or alignment is needed: the lip vertices of the head define the centre of every
frame. The scale of the crop is fixed by the neutral head, so that a widening mouth looks wider (docs/method.md,
section 4.2).
"""

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

_CROP_PER_LIPS = 1.8  # crop width divided by the width of the neutral lips
_DISTANCE_M = 0.5  # distance of the camera from the lips
_REACH_M = 0.1  # depth range in front of and behind the lips that the z-buffer resolves
_MARGIN = 1.1  # size of the drawn region divided by the size of the crop
_DEEPEST_M = 0.06  # largest depth of drawn vertices behind the centre of the lips
_AWAY = -0.5  # cosine between neutral normal and view axis; faces below it are never visible
_BACKGROUND = 0.06  # grey value behind the mouth of a head without a mouth interior
_LIGHT = np.float32([-0.30, 0.50, 0.81])  # unit direction towards the light in camera axes
_AMBIENT, _DIFFUSE, _WRAP = 0.30, 0.75, 0.25
_LUMA = np.float32([0.2126, 0.7152, 0.0722])
_GAMMA = 1.0 / 2.2


class MouthRenderer(NamedTuple):
    """The part of a head that mouth crops show. `mouth_renderer` creates it; it is constant under jit.

    Attributes:
        head: the head subset around the mouth, with v vertices; the last 5 represent the joints.
        vertices: `[n]` indices of its other n = v - 5 vertices in the whole head.
        faces: `[f, 3]` vertex indices.
        edges: the edges of the faces.
        reflectance: `[n]` share of light that each vertex reflects, linear, 0 to 1.
        crop_width_m: width of the crop at the distance of the lips.
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
        """Draws motion frames.

        Frames are drawn one after the other in a loop, and all axes before the time axis at once, so a batch that is
        split over devices is not moved between them. Call this function in `collectives.rows_apart`, because otherwise
        devices wait for one another in every iteration.

        Args:
            motion: `[..., t, 53]` motion frames.

        Returns:
            Grey display values, about 0 to 1. They are differentiable; the order in depth counts as constant.
        """
        picture = self._picture
        time_axis = motion.ndim - 2
        for _ in range(time_axis):
            picture = jax.vmap(picture)
        pictures = jax.lax.map(picture, jnp.moveaxis(motion, time_axis, 0))
        return jnp.moveaxis(pictures, 0, time_axis)

    def _picture(self, frame: Float[Array, "53"]) -> Float[Array, "size size"]:
        vertices = motion_vertices(self.head, frame)[: len(self.vertices)]
        screen, nearness = self.project(vertices)
        shade = self.shade(vertices)
        return draw(screen, nearness, shade, self.faces, self.edges, size=self.size, background=_BACKGROUND)

    def project(self, vertices: Float[Array, "n 3"]) -> tuple[Float[Array, "n 2"], Float[Array, " n"]]:
        """Projects vertices through a pinhole camera in front of the centre of the lips.

        Returns:
            Column and row in pixels `[n, 2]`, and scaled inverse depth in [0, 1] `[n]`; larger is nearer.
        """
        lips = jnp.mean(vertices[self.head.masks["lips"]], axis=0)
        x, y, z = jnp.moveaxis(vertices - lips[None, :], -1, 0)
        inverse = 1.0 / (_DISTANCE_M - z)
        focal = self.size * _DISTANCE_M / self.crop_width_m
        middle = 0.5 * (self.size - 1)
        screen = jnp.stack([middle + focal * x * inverse, middle - focal * y * inverse], axis=-1)
        far, near = 1.0 / (_DISTANCE_M + _REACH_M), 1.0 / (_DISTANCE_M - _REACH_M)
        return screen, (inverse - far) / (near - far)

    def shade(self, vertices: Float[Array, "n 3"]) -> Float[Array, " n"]:
        """Computes the grey display value of every vertex from ambient light and one light above the camera."""
        corners = take_rows(vertices, self.faces)
        turned = jnp.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = add_rows(turned, self.faces, len(self.vertices))
        length = jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(normals), axis=-1), 1e-24))
        facing = jnp.sum(normals * _LIGHT[None, :], axis=-1) / length
        light = _AMBIENT + _DIFFUSE * jnp.maximum((facing + _WRAP) / (1.0 + _WRAP), 0.0)
        return (self.reflectance * light) ** _GAMMA


def mouth_renderer(head: HeadModel, size: int = MOUTH_CROP_SIZE) -> MouthRenderer:
    """Creates the renderer of a head: selects the faces that a camera in front of the head may see within the crop.

    Args:
        head: a head with a non-empty mask `lips`. For another identity, write its shape into the template.
        size: side of the pictures in pixels.

    Raises:
        ValueError: The head has no lips, or the size is not positive.
    """
    lips = head.masks["lips"]
    if len(lips) == 0:
        raise ValueError(
            f"head {head.name!r} has no lips to draw; expected a head with a non-empty mask 'lips'"
        )
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
    """Returns the faces near the neutral crop that do not face away from the camera."""
    lips = head.masks["lips"]
    half = 0.5 * _MARGIN * _crop_width_m(template, lips)
    x, y, z = (template - template[lips].mean(axis=0)).T
    inside = (np.abs(x) < half) & (np.abs(y) < half) & (z > -_DEEPEST_M)
    corners = template[head.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    towards = normals[:, 2] > _AWAY * np.linalg.norm(normals, axis=1)
    return head.faces[inside[head.faces].any(axis=1) & towards]
