"""The frozen lip-reading network of stage 2, on pictures that are rendered from motion (SPEC section 4)."""

from typing import Any

from jaxtyping import Float

from deeptalk_jax.assembly.build import build_lip_reader, compute_dtype
from deeptalk_jax.assembly.model_dir import Part
from deeptalk_jax.collectives import rows_apart
from deeptalk_jax.head.model import HeadModel
from deeptalk_jax.interop.visual_speech_file import load_visual_speech
from deeptalk_jax.models.visual_speech import VisualSpeech
from deeptalk_jax.rendering.mouth import MOUTH_CROP_SIZE, mouth_renderer
from deeptalk_jax.types import Array

PyTree = Any


class MouthReader:
    """Motion to visual speech features.

    Args:
        encoder: the network.
        variables: its weights and statistics.
        head: whose mouth it looks at.
        crop_size: side of its pictures in pixels.
    """

    def __init__(self, encoder: VisualSpeech, variables: PyTree, head: HeadModel, crop_size: int):
        self.encoder, self.variables = encoder, variables
        self._renderer = mouth_renderer(head, crop_size)

    @classmethod
    def of_part(cls, part: Part, head: HeadModel, dtype: str) -> "MouthReader":
        """The encoder of a lip reader that was trained here, computed in `dtype`."""
        variables = {name: tree["encoder"] for name, tree in part.variables.items() if "encoder" in tree}
        return cls(build_lip_reader(part.config, dtype).encoder, variables, head, part.config.model.crop_size)

    @classmethod
    def of_file(cls, path: str, head: HeadModel, dtype: str) -> "MouthReader":
        """A published encoder, computed in `dtype`; for what it raises see `load_visual_speech`."""
        encoder, variables = load_visual_speech(path)
        return cls(encoder.clone(dtype=compute_dtype(dtype)), variables, head, MOUTH_CROP_SIZE)

    def features(self, variables: PyTree, motion: Float[Array, "b t 53"]) -> Float[Array, "b t d"]:
        """Features of every frame, in evaluation mode, differentiable in the motion.

        Args:
            variables: as `self.variables`; given, so that a compiled step does not hold them as constants.
            motion: neighbouring frames at 25 Hz.
        """
        return self.encoder.apply(variables, rows_apart(self._renderer.from_motion)(motion))
