"""Stage 2 of DEEPTalk: continues the training of a generator with losses on rendered lips and on emotion.

It adds two terms to those of stage 1 (docs/method.md, section 4.2): a lip-reading loss, and an emotion swap. The swap
generates the same speech with the emotion of another clip; the motion must show that emotion while its lips still match
the speech. The published config has a weight for the swap, but how it is computed is not published; this is our design.
"""

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

import einops
import jax
import jax.numpy as jnp
from jaxtyping import Array as KeyArray
from jaxtyping import Float, Int

from deeptalk_jax.assembly.model_dir import check_variables
from deeptalk_jax.collectives import global_rows, local_rows, side_by_side
from deeptalk_jax.errors import ConfigError, UserError
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
    """Continues the training of a stage-1 generator; the model directory of stage 1 also has the constant parts."""

    name = "deeptalk_stage2"

    def __init__(self, config, upstream=None):
        if not 0 <= config.loss.lip_reading_frames <= config.data.window_frames:
            raise ConfigError(
                f"loss.lip_reading_frames={config.loss.lip_reading_frames}: expected 0 to "
                f"data.window_frames={config.data.window_frames}"
            )
        super().__init__(config, upstream)

    @property
    def swaps(self) -> bool:
        """Whether a term of the emotion swap has a weight."""
        return any(self.config.loss[name] for name in SWAP_WEIGHTS)

    @property
    def reads_lips(self) -> bool:
        """Whether a lip-reading term has a weight."""
        return bool(self.config.loss.lip_reading_weight or self.config.loss.swap_lip_reading_weight)

    def upstream_parts(self) -> Mapping[str, tuple[str, ...]]:
        """Returns the parts that the stage reads; the lip reader only if no published network takes its place."""
        parts = dict(super().upstream_parts())
        if not self.reads_lips or self.config.pretrained.visual_speech:
            del parts["lip_reader"]
        return parts

    @cached_property
    def mouth_reader(self) -> MouthReader:
        """The lip-reading network; it is built on first use, because evaluation does not need it."""
        head, dtype = load_head(self.config.head), self.config.model.dtype
        if path := self.config.pretrained.visual_speech:
            return MouthReader.of_file(path, head, dtype)
        return MouthReader.of_part(self.upstream["lip_reader"], head, dtype)

    def pretrained_params(self) -> PyTree:
        """Returns all weights of the stage-1 generator.

        Raises:
            UserError: the config describes another generator than that of the model directory.
        """
        part, directory = self.upstream["deeptalk"], self.config.upstream.deeptalk
        try:
            check_variables("deeptalk", part.variables, jax.eval_shape(self.init, jax.random.key(0)))
        except UserError as error:
            raise UserError(f"--config.upstream.deeptalk={directory}: {error}") from error
        return part.variables["params"]

    def upstream_variables(self) -> PyTree:
        """Returns the variables of FER, DEE and the prior; those of the stage-1 generator are only a start."""
        return {name: self.upstream[name].variables for name in ("fer", "dee", "motion_prior")}

    def constants(self) -> PyTree:
        """Returns the constants of stage 1 and, if a term needs it, the lip-reading network."""
        constants = super().constants()
        return constants | ({"visual_speech": self.mouth_reader.variables} if self.reads_lips else {})

    def loss_fn(self, params, model_state, constants, batch, step, key):
        """Computes the sum of the terms of stage 1, lip reading and the emotion swap with a weight above 0."""
        loss, speech = self.config.loss, self.training_emotion(constants, batch, key)
        swap_key, frames_key = jax.random.split(jax.random.fold_in(key, 0))
        emotions = [speech, other_rows(speech, swap_key)] if self.swaps else [speech]
        encoded = self.training_encoding(params, model_state, constants, batch, key)
        generate = self.generator(params, model_state, constants, batch, step, key, encoded)
        generated, *swapped = outputs = [generate(emotion.mean) for emotion in emotions]
        terms = self.motion_terms(generated, constants, batch)
        terms |= self.viseme_terms(params, model_state, constants, batch, encoded)
        if loss.emotion_weight or loss.motion_emotion_weight or loss.swap_emotion_weight:
            shown = side_by_side(
                lambda rows: self.motion_emotion(constants, *rows),
                [(output.motion, batch["num_frames"]) for output in outputs],
            )
            terms |= self.emotion_terms(shown[0], speech, constants, batch)
            if loss.swap_emotion_weight:
                terms["swap_emotion"] = self.consistency(constants, emotions[1], shown[1])
        if loss.swap_lip_weight:
            terms["swap_lip"] = self.surface_error(constants["lip_factor"], swapped[0].motion, batch)
        if self.reads_lips:
            names = ("lip_reading", "swap_lip_reading")
            motions = {
                name: output.motion
                for name, output in zip(names, (generated, *swapped), strict=False)
                if loss[f"{name}_weight"]
            }
            terms |= self.lip_reading_terms(motions, constants, batch, frames_key)
        return weighted_total(terms, self.weights(terms)), (model_state, terms)

    def lip_reading_terms(
        self,
        motions: dict[str, Float[Array, "b t 53"]],
        constants: PyTree,
        batch: dict[str, Array],
        key: KeyArray,
    ) -> dict[str, Float[Array, ""]]:
        """Computes the lip-reading error of motions against the true motion.

        Rendering is expensive, so only every `lip_reading_every`-th window is read, in `lip_reading_frames` consecutive
        frames at a random place. The place is the same in all windows: windows are cut at random already.

        Args:
            motions: motions by name of the term.
            constants: see `constants`.
            batch: see `batch_shapes`.
            key: random key of the place.

        Raises:
            ConfigError: `lip_reading_every` does not divide the windows of a device.
        """
        rows, num_frames = batch["motion"].shape[:2]
        length, every = self.config.loss.lip_reading_frames or num_frames, self.config.loss.lip_reading_every
        if rows % every:
            raise ConfigError(
                f"loss.lip_reading_every={every}: expected a divisor of the {rows} windows of a device"
            )
        start = jax.random.randint(key, (), 0, num_frames - length + 1)

        def read_part(x):
            first = einops.rearrange(x, "(n every) ... -> n every ...", every=every)[:, 0]
            return jax.lax.dynamic_slice_in_dim(first, start, length, axis=1)

        read = partial(self.mouth_reader.features, constants["visual_speech"])
        target, *features = side_by_side(
            read, [read_part(motion) for motion in (batch["motion"], *motions.values())]
        )
        mask = read_part(length_mask(batch["num_frames"], num_frames))
        return {
            name: masked_mean(lip_reading_error(values, target), mask)
            for name, values in zip(motions, features, strict=True)
        }


def other_rows(emotion: Gaussian, key: KeyArray) -> Gaussian:
    """Returns for each row the Gaussian of another row of the global batch.

    All rows are shifted by the same random number, so every Gaussian is used once.
    """
    whole = jax.tree.map(global_rows, emotion)
    rows = whole.mean.shape[0]
    shift: Int[Array, ""] = jax.random.randint(key, (), 1, max(rows, 2))
    return jax.tree.map(lambda x: local_rows(jnp.roll(x, shift, axis=0)), whole)
