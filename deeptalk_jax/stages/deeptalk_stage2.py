"""Stage 2 of DEEPTalk: the trained generator learns from how its motion looks and feels (SPEC section 4).

To the terms of stage 1 it adds the lip-reading loss, and the emotion swap: the same speech with the emotion of another
clip, where the motion must show that emotion while its lips still say what is spoken. The published config has a
weight for the swap; how it is computed is not published, and is ours.
"""

from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import einops
import jax
import jax.numpy as jnp
from jaxtyping import Array as KeyArray
from jaxtyping import Float, Int

from deeptalk_jax.assembly.model_dir import check_variables
from deeptalk_jax.collectives import global_rows, local_rows, side_by_side
from deeptalk_jax.errors import UserError
from deeptalk_jax.head.load import load_head
from deeptalk_jax.losses.lip_reading import lip_reading_error
from deeptalk_jax.losses.reduce import masked_mean, weighted_total
from deeptalk_jax.masks import length_mask
from deeptalk_jax.stages.deeptalk import DEEPTalkStage
from deeptalk_jax.stages.mouth_reader import MouthReader
from deeptalk_jax.types import Array, Gaussian

PyTree = Any

SWAP_WEIGHTS = ("swap_emotion_weight", "swap_lip_weight", "swap_lip_reading_weight")


class DEEPTalkStage2(DEEPTalkStage):
    """Goes on from a generator of stage 1, which brings its frozen parts along; exports one of the same kind."""

    name = "deeptalk_stage2"
    upstream_parts = MappingProxyType({"deeptalk": ("fer", "dee", "motion_prior", "deeptalk")})

    def __init__(self, config, upstream=None):
        loss = config.loss
        self.swaps = any(loss[name] for name in SWAP_WEIGHTS)
        self.reads_lips = bool(loss.lip_reading_weight or loss.swap_lip_reading_weight)
        if self.reads_lips and not config.pretrained.visual_speech:
            self.upstream_parts = self.upstream_parts | {"lip_reader": ("lip_reader",)}
        if not 0 <= loss.lip_reading_frames <= config.data.window_frames:
            raise ValueError(
                f"loss.lip_reading_frames={loss.lip_reading_frames} is not between 0 and "
                f"data.window_frames={config.data.window_frames}"
            )
        super().__init__(config, upstream)

    @classmethod
    def exported_part(cls) -> str:
        """The generator's, in the place of the one that it started from."""
        return DEEPTalkStage.name

    @cached_property
    def mouth_reader(self) -> MouthReader:
        """What reads lips; made when a loss asks for it, since evaluation does without."""
        head, dtype = load_head(self.config.head), self.config.model.dtype
        if path := self.config.pretrained.visual_speech:
            return MouthReader.of_file(path, head, dtype)
        return MouthReader.of_part(self.upstream["lip_reader"], head, dtype)

    def pretrained_params(self) -> PyTree:
        """All weights of the stage-1 generator.

        Raises:
            UserError: this config describes another generator.
        """
        part, directory = self.upstream["deeptalk"], self.config.upstream.deeptalk
        try:
            check_variables("deeptalk", part.variables, jax.eval_shape(self.init, jax.random.key(0)))
        except UserError as error:
            raise UserError(f"--config.upstream.deeptalk={directory}: {error}") from error
        return part.variables["params"]

    def upstream_variables(self) -> PyTree:
        """Variables of the upstream parts that are read in training: not those that it starts from."""
        return {name: self.upstream[name].variables for name in ("fer", "dee", "motion_prior")}

    def constants(self) -> PyTree:
        """Those of stage 1, and the lip-reading network where a loss wants it."""
        variables = super().constants()
        return variables | ({"visual_speech": self.mouth_reader.variables} if self.reads_lips else {})

    def loss_fn(self, params, model_state, frozen, batch, step, key):
        """Sum of the terms of stage 1, of lip reading and of the swap that have a weight."""
        loss, speech = self.config.loss, self.speech_emotion(frozen, batch)
        swap_key, frames_key = jax.random.split(jax.random.fold_in(key, 0))
        emotions = [speech, other_rows(speech, swap_key)] if self.swaps else [speech]
        generate = self.generator(params, model_state, frozen, batch, step, key)
        generated, *swapped = outputs = [generate(emotion.mean) for emotion in emotions]
        terms = self.motion_terms(generated, frozen, batch)
        if loss.emotion_weight or loss.motion_emotion_weight or loss.swap_emotion_weight:
            shown = side_by_side(
                lambda rows: self.motion_emotion(frozen, *rows),
                [(output.motion, batch["num_frames"]) for output in outputs],
            )
            terms |= self.emotion_terms(shown[0], speech, frozen, batch)
            if loss.swap_emotion_weight:
                terms["swap_emotion"] = self.consistency(frozen, emotions[1], shown[1])
        if loss.swap_lip_weight:
            terms["swap_lip"] = self.surface_error(frozen["lip_factor"], swapped[0].motion, batch)
        if self.reads_lips:
            names = ("lip_reading", "swap_lip_reading")
            motions = {
                name: output.motion
                for name, output in zip(names, (generated, *swapped), strict=False)
                if loss[f"{name}_weight"]
            }
            terms |= self.lip_reading_terms(motions, frozen, batch, frames_key)
        return weighted_total(terms, self.weights(terms)), (model_state, terms)

    def lip_reading_terms(
        self,
        motions: dict[str, Float[Array, "b t 53"]],
        frozen: PyTree,
        batch: dict[str, Array],
        key: KeyArray,
    ) -> dict[str, Float[Array, ""]]:
        """Lip-reading error of motions against the truth: `lip_reading_frames` neighbours of every n-th window.

        The frames are the same in all of them: windows are drawn and cut at random already.

        Raises:
            ValueError: `lip_reading_every` does not divide the windows of a device.
        """
        rows, num_frames = batch["motion"].shape[:2]
        length, every = self.config.loss.lip_reading_frames or num_frames, self.config.loss.lip_reading_every
        if rows % every:
            raise ValueError(f"loss.lip_reading_every={every} does not divide {rows} windows")
        start = jax.random.randint(key, (), 0, num_frames - length + 1)

        def seen(x):
            first = einops.rearrange(x, "(n every) ... -> n every ...", every=every)[:, 0]
            return jax.lax.dynamic_slice_in_dim(first, start, length, axis=1)

        read = partial(self.mouth_reader.features, frozen["visual_speech"])
        target, *features = side_by_side(
            read, [seen(motion) for motion in (batch["motion"], *motions.values())]
        )
        mask = seen(length_mask(batch["num_frames"], num_frames))
        return {
            name: masked_mean(lip_reading_error(values, target), mask)
            for name, values in zip(motions, features, strict=True)
        }


def other_rows(emotion: Gaussian, key: KeyArray) -> Gaussian:
    """To every row of the global batch the Gaussian of another one: all are shifted by the same random number."""
    whole = jax.tree.map(global_rows, emotion)
    rows = whole.mean.shape[0]
    shift: Int[Array, ""] = jax.random.randint(key, (), 1, max(rows, 2))
    return jax.tree.map(lambda x: local_rows(jnp.roll(x, shift, axis=0)), whole)
