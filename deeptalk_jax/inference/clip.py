"""`Clip`: a waveform, normalised over its whole length and handed out in padded pieces.

The encoders were trained on waveforms of zero mean and unit variance (docs/method.md, section 5).
"""

import math

import numpy as np
from jaxtyping import Float

from deeptalk_jax.inference.audio import num_motion_frames
from deeptalk_jax.inference.options import InferenceOptions
from deeptalk_jax.models.motion_prior import FRAMES_PER_TOP_CODE
from deeptalk_jax.types import AUDIO_RATE_HZ, MOTION_RATE_HZ, SAMPLES_PER_FRAME

_BLOCK_SAMPLES = 1 << 20


def published_num_samples(num_samples: int) -> int:
    """Returns the length to which the published demo pads a clip (docs/method.md, section 9).

    It is the next multiple of 4 frames above the whole frames of the clip, so a clip of exactly such a multiple gets
    four more frames. Computed in double precision as in the demo, rounding errors included: 74,240 samples count as
    115.99 frames and get no padding, and a target of 804 frames comes out one sample short.

    Returns:
        At least `num_samples`.
    """
    frames = int(num_samples / AUDIO_RATE_HZ * MOTION_RATE_HZ)
    target = (frames // FRAMES_PER_TOP_CODE + 1) * FRAMES_PER_TOP_CODE
    return max(num_samples, int(target / MOTION_RATE_HZ * AUDIO_RATE_HZ))


class Clip:
    """A waveform with its mean and variance. Normalised pieces are made on demand, so an hour is in memory once.

    Args:
        waveform: `[s]` float32 at 16 kHz, s >= 1.
        options: decides about padding.

    Attributes:
        waveform: the waveform, unchanged.
        num_samples: its length, with the padding that counts as sound.
    """

    def __init__(self, waveform: Float[np.ndarray, " s"], options: InferenceOptions):
        self.waveform = waveform
        self.num_samples = len(waveform)
        if options.waveform_padding == "published":
            self.num_samples = published_num_samples(len(waveform))
            longest = options.max_window_frames * SAMPLES_PER_FRAME
            if len(waveform) <= longest:  # padding must not push a clip into a second window
                self.num_samples = max(len(waveform), min(self.num_samples, longest))
        self._mean, self._variance = _moments(waveform, self.num_samples)

    @property
    def num_frames(self) -> int:
        """Motion frames of the waveform without padding: `ceil(seconds * 25)`."""
        return num_motion_frames(len(self.waveform))

    @property
    def num_model_frames(self) -> int:
        """Motion frames that the generator makes, including those of the padding that counts as sound."""
        return num_motion_frames(self.num_samples)

    def piece(
        self, first_sample: int, num_samples: int, size: int, *, eps: float
    ) -> Float[np.ndarray, " size"]:
        """Returns normalised samples, followed by zeros.

        Args:
            first_sample: start of the piece.
            num_samples: length of the piece, within the clip and its padding.
            size: length of the result, at least `num_samples`.
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
    """Returns mean and variance of a waveform that is padded with zeros to `num_samples`.

    In float64, because an hour has 6e7 samples and float32 squares overflow past 1e19; in blocks, so that no float64
    copy of an hour is made.
    """
    starts = range(0, len(waveform), _BLOCK_SAMPLES)
    blocks = [waveform[start : start + _BLOCK_SAMPLES] for start in starts]
    mean = sum(float(block.sum(dtype=np.float64)) for block in blocks) / num_samples
    squares = sum(float(np.square(block - np.float64(mean)).sum()) for block in blocks)
    return mean, (squares + (num_samples - len(waveform)) * mean**2) / num_samples
