"""Speech in, an emotionally expressive 3-D talking face out, in JAX and Flax.

from deeptalk_jax import DeepTalk
model = DeepTalk.load("outputs/demo/model")
motion = model.animate("speech.wav", temperature_top=0.5, seed=1)
motion.save("out.npz")
"""

from typing import Any

__all__ = ["DeepTalk"]


def __getattr__(name: str) -> Any:
    """Loads `DeepTalk` when asked for: readers of a sub-package need not pay for the whole."""
    if name == "DeepTalk":
        from deeptalk_jax.inference.api import DeepTalk

        return DeepTalk
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
