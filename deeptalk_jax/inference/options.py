"""Options of inference: the rules that a model's config fixes, and the sampling that a caller chooses.

The published demo is reproduced by the rules `first_10s`, `published`, 48 s and `log_variance` (docs/method.md,
section 9).
"""

from dataclasses import dataclass, fields

import numpy as np
from ml_collections import ConfigDict

from deeptalk_jax.errors import ConfigError, UserError
from deeptalk_jax.inference.windows import CONTEXT_FRAMES
from deeptalk_jax.models.motion_prior import FRAMES_PER_TOP_CODE
from deeptalk_jax.types import MOTION_RATE_HZ

EMOTION_WINDOWS = ("pooled", "first_10s")
WAVEFORM_PADDINGS = ("none", "published")
ALPHA_MODES = ("standard_deviation", "log_variance")

# On a CPU the clips of a batch run one after the other, so memory hardly depends on this.
DEFAULT_BATCH_SIZE = 8
_NUM_SEEDS = 2**32  # jax.random.key silently drops the bits above


@dataclass(frozen=True)
class InferenceOptions:
    """Rules of inference, the section `inference` of a generator's config.

    Attributes:
        emotion_windows: source of the emotion of a clip longer than 10 s. `pooled`: windows of 10 s are embedded and
            their Gaussians pooled by precision. `first_10s`: the speech encoder processes the whole clip, at most
            `max_window_s` of it, and only the features of the first 10 s are embedded.
        waveform_padding: `none`: a clip is normalised over its own samples, and padding is masked everywhere.
            `published`: zeros are appended to the clip before it is normalised (`published_num_samples`) and count
            as sound.
        max_window_s: longest window of the generator, in seconds. A longer clip is cut into overlapping windows of
            this length, and their motions are cross-faded.
        alpha_mode: meaning of `Sampling.alpha`, see `draw_emotion`.

    Raises:
        ConfigError: an option has an unknown value, or `max_window_s` is too short for the overlap or not a whole
            number of top codes long.
    """

    emotion_windows: str = "pooled"
    waveform_padding: str = "none"
    max_window_s: float = 20.48
    alpha_mode: str = "standard_deviation"

    def __post_init__(self):
        for name, known in (
            ("emotion_windows", EMOTION_WINDOWS),
            ("waveform_padding", WAVEFORM_PADDINGS),
            ("alpha_mode", ALPHA_MODES),
        ):
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(f"inference.{name}={value!r}: expected one of {', '.join(known)}")
        frames = self.max_window_frames
        whole = abs(frames - self.max_window_s * MOTION_RATE_HZ) < 1e-6 and not frames % FRAMES_PER_TOP_CODE
        if not whole or frames < 3 * CONTEXT_FRAMES:
            raise ConfigError(
                f"inference.max_window_s={self.max_window_s}: expected a multiple of"
                f" {FRAMES_PER_TOP_CODE / MOTION_RATE_HZ} s of at least {3 * CONTEXT_FRAMES / MOTION_RATE_HZ} s"
            )

    @classmethod
    def from_config(cls, config: ConfigDict) -> "InferenceOptions":
        """Reads the options from `config.inference`."""
        return cls(**{field.name: config.inference[field.name] for field in fields(cls)})

    @property
    def max_window_frames(self) -> int:
        """`max_window_s` in motion frames."""
        return round(self.max_window_s * MOTION_RATE_HZ)


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters that a caller chooses; they are checked once, here.

    Attributes:
        temperature_top: sampling temperature of the top (slow) codes; 0 takes the most likely code.
        temperature_bottom: sampling temperature of the bottom (fast) codes; 0 takes the most likely code.
        top_p: nucleus probability, 0 to 1. Codes of either level are drawn from the most likely ones whose
            probabilities first reach `top_p` together; 1 keeps all codes, 0 only the most likely one.
        alpha: spread of the emotion around its mean; 0 takes the mean.
        seed: random seed, 0 to 2^32 - 1.
        num_samples: motions per sound; motion i is drawn with `seed + i`.
        batch_size: largest number of 10 s motions in one compiled call. A call always holds all samples of a sound.

    Raises:
        UserError: a value is out of range; the message names the first one.
    """

    temperature_top: float = 0.0
    temperature_bottom: float = 0.0
    top_p: float = 1.0
    alpha: float = 0.0
    seed: int = 0
    num_samples: int = 1
    batch_size: int = DEFAULT_BATCH_SIZE

    def __post_init__(self):
        for name in ("temperature_top", "temperature_bottom", "alpha"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise UserError(f"{name}={value} must be a finite number, 0 or above")
        if not 0 <= self.top_p <= 1:
            raise UserError(f"top_p={self.top_p} must lie between 0 and 1")
        for name in ("num_samples", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be 1 or above")
        if not 0 <= self.seed < _NUM_SEEDS:
            raise UserError(f"seed={self.seed} must lie between 0 and 2^32 - 1")
        if self.seed + self.num_samples > _NUM_SEEDS:
            raise UserError(
                f"seed={self.seed} with num_samples={self.num_samples}: the last seed must not exceed 2^32 - 1"
            )
        if self.num_samples > 1 and not (self.temperature_top or self.temperature_bottom or self.alpha):
            raise UserError(
                f"num_samples={self.num_samples} would give equal motions: temperature_top, temperature_bottom and "
                "alpha are all 0; set one of them above 0"
            )

    def drawn_with(self) -> dict[str, float]:
        """Returns the parameters that a motion depends on, by name."""
        names = ("seed", "temperature_top", "temperature_bottom", "top_p", "alpha")
        return {name: getattr(self, name) for name in names}

    @property
    def seeds(self) -> range:
        """Seed of every sample of a sound."""
        return range(self.seed, self.seed + self.num_samples)
