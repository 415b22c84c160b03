"""DEEPTalk's generator: the index predictor in front of the frozen motion prior (SPEC section 4).

The bottom logits depend on the chosen top codes, so prediction and decoding interleave; this file is the one home
of that order, for training and for inference.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array as KeyArray
from jaxtyping import Float, Int

from deeptalk_jax.masks import length_mask
from deeptalk_jax.models.motion_prior import FRAMES_PER_BOTTOM_CODE, FRAMES_PER_TOP_CODE, MotionPrior
from deeptalk_jax.models.predictor import IndexPredictor
from deeptalk_jax.models.sampling import choose_codes, straight_through_gumbel_softmax
from deeptalk_jax.types import Array


class Generated(NamedTuple):
    """Motion and the choices behind it.

    Attributes:
        motion: `[b, t, 53]`.
        indices_top: `[b, t/4]`.
        indices_bottom: `[b, t/2]`.
        logits_top: `[b, t/4, k]`.
        logits_bottom: `[b, t/2, k]`.
    """

    motion: Array
    indices_top: Array
    indices_bottom: Array
    logits_top: Array
    logits_bottom: Array


class Generator(nn.Module):
    """Speech, emotion and identity to motion.

    Attributes:
        predictor: the trained half.
        prior: the frozen half; always in evaluation mode.
    """

    predictor: IndexPredictor
    prior: MotionPrior

    def __call__(
        self,
        waveform: Float[Array, "b s"],
        num_samples: Int[Array, " b"],
        emotion: Float[Array, "b d"],
        identity: Float[Array, "b i"],
        *,
        num_frames: int,
        tau: Float[Array, ""] | float,
        train: bool = True,
        encoded: Float[Array, "b t f"] | None = None,
    ) -> Generated:
        """Differentiable generation of full windows, by straight-through Gumbel-softmax (stream `sample`).

        `encoded` is what `encode` gave for this sound, where it is known already.
        """
        face = self.predictor.face_features(
            waveform, num_samples, emotion, identity, num_frames=num_frames, train=train, encoded=encoded
        )
        logits_top = self.predictor.logits_top(face)
        choice_top = straight_through_gumbel_softmax(logits_top, tau, self.make_rng("sample"))
        codes_top = self.prior.mix_top(choice_top)
        logits_bottom = self.predictor.logits_bottom(face, self.prior.decode_top(codes_top))
        choice_bottom = straight_through_gumbel_softmax(logits_bottom, tau, self.make_rng("sample"))
        motion = self.prior.decode(codes_top, self.prior.mix_bottom(choice_bottom))
        return Generated(
            motion, jnp.argmax(choice_top, -1), jnp.argmax(choice_bottom, -1), logits_top, logits_bottom
        )

    def encode(
        self,
        waveform: Float[Array, "b s"],
        num_samples: Int[Array, " b"],
        *,
        num_frames: int,
        train: bool = False,
    ) -> Float[Array, "b t f"]:
        """Features of the speech encoder, one for every frame."""
        return self.predictor.encode(waveform, num_samples, num_frames=num_frames, train=train)

    def sample(
        self,
        waveform: Float[Array, "b s"],
        num_samples: Int[Array, " b"],
        emotion: Float[Array, "b d"] | Float[Array, "b t d"],
        identity: Float[Array, "b i"],
        keys: KeyArray,
        *,
        num_codes: Int[Array, " b"],
        num_frames: int,
        temperature_top: Float[Array, ""] | float = 0.0,
        temperature_bottom: Float[Array, ""] | float = 0.0,
        top_p: Float[Array, ""] | float = 1.0,
        first_frames: Int[Array, " b"] | None = None,
    ) -> Generated:
        """Generation for padded batches of any length.

        Args:
            waveform: 16 kHz, in [-1, 1].
            num_samples: valid samples of every clip.
            emotion: vectors of unit length, one for every clip or one for every frame.
            identity: one-hot or a mixture.
            keys: `[b]` random keys, one for each clip; unused at temperature 0.
            num_codes: valid top codes of every clip: frames / 4, rounded up.
            num_frames: static number of frames to make, a multiple of 4.
            temperature_top: of the top codes, 0 = most likely.
            temperature_bottom: of the bottom codes.
            top_p: of the nucleus that codes of either level are drawn from; 1 = all.
            first_frames: place of every window in its clip, multiples of 4; decides the noise. By default 0.

        Raises:
            ValueError: `num_frames` is no multiple of 4; see also `IndexPredictor.face_features`.
        """
        if num_frames % FRAMES_PER_TOP_CODE:
            raise ValueError(f"num_frames={num_frames} is no multiple of {FRAMES_PER_TOP_CODE}")
        mask_top = length_mask(num_codes, num_frames // FRAMES_PER_TOP_CODE)
        mask_bottom = jnp.repeat(mask_top, FRAMES_PER_TOP_CODE // FRAMES_PER_BOTTOM_CODE, axis=1)
        mask_frames = jnp.repeat(mask_top, FRAMES_PER_TOP_CODE, axis=1)
        keys_top, keys_bottom = jnp.unstack(jax.vmap(jax.random.split)(keys), axis=1)
        if first_frames is None:
            first_frames = jnp.zeros_like(num_codes)

        face = self.predictor.face_features(
            waveform, num_samples, emotion, identity, num_frames=num_frames, mask=mask_frames
        )
        logits_top = self.predictor.logits_top(face, mask=mask_top)
        indices_top = choose_codes(
            logits_top, temperature_top, keys_top, first_frames // FRAMES_PER_TOP_CODE, top_p=top_p
        )
        codes_top = self.prior.lookup_top(indices_top)
        decoded_top = self.prior.decode_top(codes_top, mask=mask_top)
        logits_bottom = self.predictor.logits_bottom(face, decoded_top, mask=mask_bottom)
        indices_bottom = choose_codes(
            logits_bottom,
            temperature_bottom,
            keys_bottom,
            first_frames // FRAMES_PER_BOTTOM_CODE,
            top_p=top_p,
        )
        motion = self.prior.decode(codes_top, self.prior.lookup_bottom(indices_bottom), mask=mask_top)
        return Generated(motion, indices_top, indices_bottom, logits_top, logits_bottom)
