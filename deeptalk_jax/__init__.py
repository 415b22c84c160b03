"""Emotional 3-D talking heads from speech, in JAX and Flax (DEEPTalk, AAAI 2025).

from deeptalk_jax import DeepTalk
model = DeepTalk.load("outputs/demo/model")
motion = model.animate("speech.wav", temperature_top=0.5, seed=1)
motion.save("out.npz")
"""

from typing import Any

__all__ = ["DeepTalk"]


def __getattr__(name: str) -> Any:
    """Finds `DeepTalk` and `__version__` on first use, so that importing a subpackage stays fast."""
    if name == "DeepTalk":
        from deeptalk_jax.inference.api import DeepTalk

        return DeepTalk
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("deeptalk_jax")
        except metadata.PackageNotFoundError:  # a clone that is used without installation
            return "0+unknown"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
