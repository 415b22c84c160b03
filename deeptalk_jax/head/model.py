"""The data of a FLAME-compatible blend-shape head, as a JAX pytree.

Coordinates are in metres: x points to the speaker's own left, y up, and z out of the face. `lbs.py` turns coefficients
into vertices; `load.py` loads heads.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import flax.struct
import numpy as np

from deeptalk_jax.head.basis import Basis
from deeptalk_jax.types import Array

JOINT_NAMES = ("root", "neck", "jaw", "left_eye", "right_eye")
JAW = JOINT_NAMES.index("jaw")
JOINT_PARENTS = (-1, 0, 1, 1, 1)
NUM_POSE_FEATURES = 9 * (len(JOINT_NAMES) - 1)  # entries of R - I of every joint except the root

MATERIALS = ("skin", "lips", "eye_white", "iris", "pupil", "hair", "teeth", "tongue", "inner_mouth")
MASK_NAMES = ("lips", "eyes", "forehead", "face", "mouth_interior")


@dataclass(frozen=True, eq=False)
class HeadSurface:
    """The parts of a head that do not enter the vertex arithmetic: connectivity, named regions and colours.

    Equality and hash depend on the contents only, so a surface can be static under `jax.jit` and an equal copy does
    not cause a new trace.

    Attributes:
        faces: `[f, 3]` int32 vertex indices, counter-clockwise as seen from outside.
        materials: `[v]` uint8 indices into `MATERIALS`.
        albedo: `[v, 3]` float32 diffuse colour in sRGB, 0 to 1.
        masks: region name -> sorted int32 vertex indices. All names of `MASK_NAMES` are present; `mouth_interior` is
            empty for heads without one (FLAME).
        landmarks: point name -> vertex index; empty for heads without named points.
        mask_source: where the masks come from, for reports; not compared.
    """

    faces: np.ndarray
    materials: np.ndarray
    albedo: np.ndarray
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    landmarks: Mapping[str, int] = field(default_factory=dict)
    mask_source: str = ""

    @cached_property
    def digest(self) -> str:
        """Hexadecimal hash of the contents."""
        state = hashlib.sha1(usedforsecurity=False)
        for array in (self.faces, self.materials, self.albedo):
            state.update(np.ascontiguousarray(array).tobytes())
        for name in sorted(self.masks):
            state.update(name.encode() + np.ascontiguousarray(self.masks[name]).tobytes())
        state.update(repr(sorted(self.landmarks.items())).encode())
        return state.hexdigest()

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HeadSurface) and self.digest == other.digest


@flax.struct.dataclass
class HeadModel:
    """Blend shapes, joints and skinning weights of one head, with its surface.

    Attributes:
        template: `[v, 3]` neutral vertices, metres.
        expression_directions: `[v, 3, 50]` vertex offsets, metres per unit of an expression coefficient.
        shape_directions: `[v, 3, s]` vertex offsets, metres per unit of an identity coefficient.
        pose_directions: `[36, v, 3]` vertex offsets, metres per unit of an entry of R - I; the entries belong to neck,
            jaw, left eye and right eye, 9 each.
        joint_regressor: `[5, v]` weights of the joints: joints = joint_regressor @ shaped vertices. Rows sum to 1.
        skinning_weights: `[v, 5]` weights of the joints for each vertex. Rows sum to 1.
        surface: faces, masks and colours; static under jit.
        parents: index of each joint's parent, -1 for the root; static under jit.
        name: name of the file or generator that the head comes from; static under jit.
        basis: which movements the coefficients stand for; None if it is not known; static under jit.
    """

    template: Array
    expression_directions: Array
    shape_directions: Array
    pose_directions: Array
    joint_regressor: Array
    skinning_weights: Array
    surface: HeadSurface = flax.struct.field(pytree_node=False)
    parents: tuple[int, ...] = flax.struct.field(pytree_node=False, default=JOINT_PARENTS)
    name: str = flax.struct.field(pytree_node=False, default="head")
    basis: Basis | None = flax.struct.field(pytree_node=False, default=None)

    @property
    def num_vertices(self) -> int:
        """Number of vertices."""
        return self.template.shape[0]

    @property
    def num_shape_coeffs(self) -> int:
        """Number of identity coefficients."""
        return self.shape_directions.shape[-1]

    @property
    def faces(self) -> np.ndarray:
        """`[f, 3]` int32 vertex indices."""
        return self.surface.faces

    @property
    def masks(self) -> Mapping[str, np.ndarray]:
        """Sorted vertex indices by region name."""
        return self.surface.masks

    @property
    def landmarks(self) -> Mapping[str, int]:
        """Vertex index by point name; empty for heads without named points."""
        return self.surface.landmarks

    @property
    def materials(self) -> np.ndarray:
        """`[v]` uint8 indices into `MATERIALS`."""
        return self.surface.materials

    @property
    def albedo(self) -> np.ndarray:
        """`[v, 3]` float32 sRGB colour."""
        return self.surface.albedo


def describe_masks(head: HeadModel) -> str:
    """Returns the number of vertices of each mask that has any, and where the masks come from, for reports."""
    sizes = ", ".join(f"{name} {len(indices)}" for name, indices in head.masks.items() if len(indices))
    return f"vertices: {sizes}; from {head.surface.mask_source or 'an unknown source'}"
