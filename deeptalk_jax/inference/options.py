"""How a model is run, as its config says: our own rules, or those of the published demo.

The published demo is reproduced by `first_10s`, `published`, 48 s and `log_variance` (SPEC section 9).
"""

from dataclasses import dataclass

from ml_collections import ConfigDict

from deeptalk_jax.inference.windows import CONTEXT_FRAMES
from deeptalk_jax.models.motion_prior import FRAMES_PER_TOP_CODE
from deeptalk_jax.types import MOTION_RATE_HZ

EMOTION_WINDOWS = ("pooled", "first_10s")
WAVEFORM_PADDINGS = ("none", "published")
ALPHA_MODES = ("standard_deviation", "log_variance")


@dataclass(frozen=True)
class InferenceOptions:
    """Rules of inference.

    Attributes:
        emotion_windows: what the emotion of a clip past 10 s is taken from. `pooled`: windows of 10 s, whose
            Gaussians are pooled by precision. `first_10s`: the speech encoder sees the whole clip, at most
            `max_window_s` of it, and the features of its first 10 s are kept.
        waveform_padding: `none`: a clip is normalised over its own samples, and padding is masked everywhere.
            `published`: zeros are put behind the clip before it is normalised (`published_num_samples`), and count
            as sound.
        max_window_s: longest stretch that the generator sees at once; a longer clip is cut into windows of this
            length that overlap and are cross-faded.
        alpha_mode: what `alpha` scales, see `draw_emotion`.

    Raises:
        ValueError: an unknown word, or windows too short to overlap or no whole number of top codes long.
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
                raise ValueError(f"inference.{name}={value!r} is not one of {known}")
        frames = self.max_window_frames
        whole = abs(frames - self.max_window_s * MOTION_RATE_HZ) < 1e-6 and not frames % FRAMES_PER_TOP_CODE
        if not whole or frames < 3 * CONTEXT_FRAMES:
            raise ValueError(
                f"inference.max_window_s={self.max_window_s} must be a multiple of"
                f" {FRAMES_PER_TOP_CODE / MOTION_RATE_HZ} s and at least {3 * CONTEXT_FRAMES / MOTION_RATE_HZ} s"
            )

    @classmethod
    def from_config(cls, config: ConfigDict) -> "InferenceOptions":
        """Options of `config.inference`."""
        inference = config.inference
        return cls(
            emotion_windows=inference.emotion_windows,
            waveform_padding=inference.waveform_padding,
            max_window_s=inference.max_window_s,
            alpha_mode=inference.alpha_mode,
        )

    @property
    def max_window_frames(self) -> int:
        """`max_window_s` in motion frames."""
        return round(self.max_window_s * MOTION_RATE_HZ)
