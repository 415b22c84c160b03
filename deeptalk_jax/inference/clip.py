"""A clip as the encoders get it: normalised over the whole, and handed out in padded pieces."""

import math

import numpy as np
from jaxtyping import Float

from deeptalk_jax.inference.audio import num_motion_frames
from deeptalk_jax.inference.options import InferenceOptions
from deeptalk_jax.models.motion_prior import FRAMES_PER_TOP_CODE
from deeptalk_jax.types import AUDIO_RATE_HZ, MOTION_RATE_HZ, SAMPLES_PER_FRAME

_BLOCK_SAMPLES = 1 << 20


def published_num_samples(num_samples: int) -> int:
    """Length to which the published demo pads a clip (SPEC section 9; quirk 7 of the reference figures).

    The next multiple of 4 frames above the whole frames that the clip has, so four frames are added to a clip that
    is such a multiple already. The steps are taken in double precision as the demo takes them: 74,240 samples
    count as 115.99 frames and get no padding, and a target of 804 frames comes out one sample short.

    Returns:
        At least `num_samples`.
    """
    frames = int(num_samples / AUDIO_RATE_HZ * MOTION_RATE_HZ)
    target = (frames // FRAMES_PER_TOP_CODE + 1) * FRAMES_PER_TOP_CODE
    return max(num_samples, int(target / MOTION_RATE_HZ * AUDIO_RATE_HZ))


class Clip:
    """A waveform and its scale. Pieces are made when asked for: an hour lies in memory once.

    Args:
        waveform: `[s]` float32 at 16 kHz, s >= 1.
        options: decide about padding.

    Attributes:
        waveform: as given.
        num_samples: with the padding that counts as sound.
    """

    def __init__(self, waveform: Float[np.ndarray, " s"], options: InferenceOptions):
        self.waveform = waveform
        self.num_samples = len(waveform)
        if options.waveform_padding == "published":
            padded, longest = (
                published_num_samples(len(waveform)),
                options.max_window_frames * SAMPLES_PER_FRAME,
            )
            # A clip that one window holds stays one window.
            self.num_samples = (
                max(len(waveform), min(padded, longest)) if len(waveform) <= longest else padded
            )
        self._mean, self._variance = _moments(waveform, self.num_samples)

    @property
    def num_frames(self) -> int:
        """Motion frames of the waveform as given: `ceil(seconds * 25)`."""
        return num_motion_frames(len(self.waveform))

    @property
    def num_model_frames(self) -> int:
        """Motion frames that the generator makes: those of the padding count."""
        return num_motion_frames(self.num_samples)

    def piece(
        self, first_sample: int, num_samples: int, size: int, *, eps: float
    ) -> Float[np.ndarray, " size"]:
        """Normalised samples, zeros behind them.

        Args:
            first_sample: where the piece begins.
            num_samples: its length, within the clip and its padding.
            size: length to fill with zeros, at least `num_samples`.
            eps: added to the variance of the whole clip.
        """
        piece = np.zeros(size, np.float32)
        sound = self.waveform[first_sample : first_sample + num_samples]
        piece[: len(sound)] = sound
        piece[:num_samples] = (piece[:num_samples] - np.float32(self._mean)) / np.float32(
            math.sqrt(self._variance + eps)
        )
        return piece


def _moments(waveform: np.ndarray, num_samples: int) -> tuple[float, float]:
    """Mean and variance of a waveform with zeros behind it, up to `num_samples`.

    In float64, for an hour has 6e7 samples and float32 squares overflow past 1e19; block by block, so that no copy
    of the hour in float64 arises.
    """
    starts = range(0, len(waveform), _BLOCK_SAMPLES)
    blocks = [waveform[start : start + _BLOCK_SAMPLES] for start in starts]
    mean = sum(float(block.sum(dtype=np.float64)) for block in blocks) / num_samples
    squares = sum(float(np.square(block - np.float64(mean)).sum()) for block in blocks)
    return mean, (squares + (num_samples - len(waveform)) * mean**2) / num_samples
