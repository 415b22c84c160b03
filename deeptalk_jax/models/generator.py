"""DEEPTalk's generator: the index predictor followed by the frozen motion prior (docs/method.md, section 4).

The bottom logits depend on the chosen top codes, so prediction and decoding alternate. This module holds that order
for training (section 4.1) and for inference (section 4.3).
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array as KeyArray
from jaxtyping import Bool, Float, Int

from deeptalk_jax.masks import length_mask
from deeptalk_jax.models.motion_prior import FRAMES_PER_BOTTOM_CODE, FRAMES_PER_TOP_CODE, MotionPrior
from deeptalk_jax.models.predictor import IndexPredictor
from deeptalk_jax.models.sampling import choose_codes, straight_through_gumbel_softmax
from deeptalk_jax.types import Array


class Generated(NamedTuple):
    """Generated motion and the codes that it was decoded from.

    Attributes:
        motion: `[b, t, 53]` at 25 Hz, float32.
        indices_top: `[b, t/4]` indices of the top codes.
        indices_bottom: `[b, t/2]` indices of the bottom codes.
        logits_top: `[b, t/4, k]` logits of the top codes, float32.
        logits_bottom: `[b, t/2, k]` logits of the bottom codes, float32.
    """

    motion: Array
    indices_top: Array
    indices_bottom: Array
    logits_top: Array
    logits_bottom: Array


def _masks(
    num_codes: Int[Array, " b"], num_frames: int
) -> tuple[Bool[Array, "b c"], Bool[Array, "b 2c"], Bool[Array, "b 4c"]]:
    """Returns which top codes, bottom codes and frames are valid; for arguments and errors see `Generator.sample`."""
    if num_frames % FRAMES_PER_TOP_CODE:
        raise ValueError(f"num_frames={num_frames}: expected a multiple of {FRAMES_PER_TOP_CODE}")
    mask_top = length_mask(num_codes, num_frames // FRAMES_PER_TOP_CODE)
    mask_bottom = jnp.repeat(mask_top, FRAMES_PER_TOP_CODE // FRAMES_PER_BOTTOM_CODE, axis=1)
    return mask_top, mask_bottom, jnp.repeat(mask_top, FRAMES_PER_TOP_CODE, axis=1)


class Generator(nn.Module):
    """Generates motion from speech, emotion and identity.

    Attributes:
        predictor: the trained half.
        prior: the frozen half, always in evaluation mode.
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
        train: bool = False,
        encoded: Float[Array, "b t f"] | None = None,
    ) -> Generated:
        """Generates windows without padding, differentiably, by straight-through Gumbel-softmax (stream `sample`).

        Args:
            waveform: samples at 16 kHz in [-1, 1].
            num_samples: number of valid samples of every clip.
            emotion: unit vectors from DEE's audio tower.
            identity: one-hot vectors or convex mixtures.
            num_frames: static number of output frames, a multiple of 4.
            tau: temperature of the Gumbel-softmax gradient.
            train: whether the predictor applies dropout (stream `dropout`).
            encoded: output of `encode` for this waveform, if it has been computed before.
        """
        # [b, s] -> [b, t, d]
        face = self.predictor.face_features(
            waveform, num_samples, emotion, identity, num_frames=num_frames, train=train, encoded=encoded
        )
        logits_top = self.predictor.logits_top(face)  # [b, t/4, k]
        choice_top = straight_through_gumbel_softmax(logits_top, tau, self.make_rng("sample"))
        codes_top = self.prior.mix_top(choice_top)  # [b, t/4, d]
        logits_bottom = self.predictor.logits_bottom(face, self.prior.decode_top(codes_top))  # [b, t/2, k]
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
        """Returns the features of the speech encoder, one per motion frame."""
        return self.predictor.encode(waveform, num_samples, num_frames=num_frames, train=train)

    def viseme_logits(self, encoded: Float[Array, "b t f"]) -> Float[Array, "b t c"]:
        """Returns the logits of the viseme of every frame, from the result of `encode`."""
        return self.predictor.viseme_logits(encoded)

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
        """Generates motion for padded batches of any length, by sampling codes at a temperature.

        Args:
            waveform: samples at 16 kHz in [-1, 1].
            num_samples: number of valid samples of every clip.
            emotion: unit vectors, one per clip or one per frame.
            identity: one-hot vectors or convex mixtures.
            keys: `[b]` random keys, one per clip; unused at temperature 0.
            num_codes: number of valid top codes of every clip, frames / 4 rounded up.
            num_frames: static number of output frames, a multiple of 4.
            temperature_top: sampling temperature of the top (slow) codes; 0 takes the most likely code.
            temperature_bottom: sampling temperature of the bottom (fast) codes; 0 takes the most likely code.
            top_p: probability mass of the nucleus that codes of both levels are drawn from; 1 keeps all codes.
            first_frames: frame of its clip at which a window starts, a multiple of 4, selects its noise; None means 0.

        Raises:
            ValueError: `num_frames` is not a multiple of 4; see also `IndexPredictor.face_features`.
        """
        mask_top, mask_bottom, mask_frames = _masks(num_codes, num_frames)
        keys_top, keys_bottom = jnp.unstack(jax.vmap(jax.random.split)(keys), axis=1)
        first_frames = jnp.zeros_like(num_codes) if first_frames is None else first_frames

        # [b, s] -> [b, t, d]
        face = self.predictor.face_features(
            waveform, num_samples, emotion, identity, num_frames=num_frames, mask=mask_frames
        )
        # [b, t, d] -> [b, t/4, k] -> [b, t/4]
        logits_top = self.predictor.logits_top(face, mask=mask_top)
        indices_top = choose_codes(
            logits_top, temperature_top, keys_top, first_frames // FRAMES_PER_TOP_CODE, top_p=top_p
        )
        codes_top = self.prior.lookup_top(indices_top)
        decoded_top = self.prior.decode_top(codes_top, mask=mask_top)  # [b, t/2, d]
        # [b, t, d] -> [b, t/2, k] -> [b, t/2]
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
