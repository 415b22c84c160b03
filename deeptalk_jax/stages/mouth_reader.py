"""Lip-reading features of motion: renders the mouth and applies a visual speech network (docs/method.md, section 4.2).

Stage 2 compares these features of the generated and of the true motion.
"""

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
    """Maps motion to visual speech features.

    Args:
        encoder: visual speech network.
        variables: weights and batch statistics of the network.
        head: head model that is rendered.
        crop_size: side of the rendered pictures, pixels.
    """

    def __init__(self, encoder: VisualSpeech, variables: PyTree, head: HeadModel, crop_size: int):
        self.encoder, self.variables = encoder, variables
        self._renderer = mouth_renderer(head, crop_size)

    @classmethod
    def of_part(cls, part: Part, head: HeadModel, dtype: str) -> "MouthReader":
        """Creates a reader from the encoder of the stage lip_reader, computed in `dtype`."""
        variables = {name: tree["encoder"] for name, tree in part.variables.items() if "encoder" in tree}
        return cls(build_lip_reader(part.config, dtype).encoder, variables, head, part.config.model.crop_size)

    @classmethod
    def of_file(cls, path: str, head: HeadModel, dtype: str) -> "MouthReader":
        """Creates a reader from a published encoder, computed in `dtype`.

        Raises:
            UserError: see `load_visual_speech`.
        """
        encoder, variables = load_visual_speech(path)
        return cls(encoder.clone(dtype=compute_dtype(dtype)), variables, head, MOUTH_CROP_SIZE)

    def features(self, variables: PyTree, motion: Float[Array, "b t 53"]) -> Float[Array, "b t d"]:
        """Returns the features of every frame in evaluation mode, differentiable in the motion.

        Args:
            variables: `self.variables`; an argument, so that a compiled step does not contain a copy of them.
            motion: consecutive frames at 25 Hz.
        """
        return self.encoder.apply(variables, rows_apart(self._renderer.from_motion)(motion))
