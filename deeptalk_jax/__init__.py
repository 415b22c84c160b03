"""Speech in, an emotionally expressive 3-D talking face out, in JAX and Flax."""
