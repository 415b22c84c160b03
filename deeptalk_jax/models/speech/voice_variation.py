"""Random variation of voice, room and channel in training, on log-mel energies, so that few speakers sound like many.

Each clip of a batch gets its own variation: the length of the vocal tract and the bandwidth of the formants
(`vary_bands`), reverberation, noise, and the response of a microphone or a telephone.

Jaitly and Hinton (2013) scale the frequency axis (VTLP); Ko et al. (ICASSP 2017) add reverberation and noise.
Departure: everything works on mel energies, which costs little and needs no recordings of rooms or noises.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array as KeyArray
from jaxtyping import Float

from deeptalk_jax.collectives import draw_rows
from deeptalk_jax.types import Array

Mel = Float[Array, "b t m"]


class VoiceVariation(NamedTuple):
    """Strength of each variation; 0 leaves it out.

    Attributes:
        max_band_shift: largest shift of the mel bands, as by another length of the vocal tract.
        max_band_blur: largest standard deviation, in bands, of the smoothing that widens formants.
        max_echo: largest share of a room's echoes in the amplitude of the direct sound.
        noise_rate: share of the clips with noise, 5 to 35 dB below their loud parts.
        response_std: standard deviation of the cosines that make up the response of a channel, nats of energy.
        telephone_rate: share of the clips with the band of a telephone.
    """

    max_band_shift: float = 0.0
    max_band_blur: float = 0.0
    max_echo: float = 0.0
    noise_rate: float = 0.0
    response_std: float = 0.0
    telephone_rate: float = 0.0


_TAPS = 16  # hops of the spectrum that a room echoes
_RESPONSE_TERMS = 5  # cosines of the random response of a channel; the first is a gain, the second a tilt
_FLOOR = -4.6  # log-mel energy of digital silence, see `mel_encoder.log_mel`


def _uniform(key: KeyArray, rows: int, low: float, high: float) -> Float[Array, " b"]:
    return draw_rows(partial(jax.random.uniform, key, minval=low, maxval=high), (rows,))


def vary_bands(key: KeyArray, x: Mel, *, max_shift: float, max_blur: float) -> Mel:
    """Shifts and stretches the bands, as another vocal tract does, and widens the formants.

    Args:
        key: random key.
        x: log-mel energies.
        max_shift: largest shift of the middle band; the outer bands shift up to half as much further.
        max_blur: largest standard deviation of the bands that are averaged.
    """
    rows, _, num_bands = x.shape
    keys = jax.random.split(key, 3)
    bands = jnp.arange(num_bands, dtype=x.dtype)
    shift = _uniform(keys[0], rows, -max_shift, max_shift)
    stretch = _uniform(keys[1], rows, -max_shift, max_shift) / num_bands
    places = bands[None] + shift[:, None] + stretch[:, None] * (bands - num_bands / 2)[None]
    places = jnp.clip(places, 0.0, num_bands - 1.0)  # [b, m]
    blur = 0.3 + _uniform(keys[2], rows, 0.0, max_blur)
    weights = jnp.exp(-0.5 * jnp.square((bands[None, :, None] - places[:, None, :]) / blur[:, None, None]))
    weights = weights / jnp.sum(weights, axis=1, keepdims=True)
    return jnp.einsum("btm,bmn->btn", x, weights)


def add_room(key: KeyArray, x: Mel, *, max_echo: float) -> Mel:
    """Adds exponentially decaying echoes to the energies: `max_echo` is their largest share of the direct sound."""
    rows, num_frames = x.shape[:2]
    keys = jax.random.split(key)
    echo = _uniform(keys[0], rows, 0.0, max_echo) ** 2
    decay = _uniform(keys[1], rows, 0.5, 0.92)
    power = jnp.exp(x)
    padded = jnp.pad(power, ((0, 0), (_TAPS, 0), (0, 0)))
    mixed = power
    for tap in range(1, _TAPS + 1):
        start = _TAPS - tap
        mixed = mixed + (echo * decay**tap)[:, None, None] * padded[:, start : start + num_frames]
    return jnp.log(mixed)


def add_noise(key: KeyArray, x: Mel, *, rate: float) -> Mel:
    """Adds noise with a random spectrum to a share `rate` of the clips, 5 to 35 dB below their loud parts."""
    rows, num_bands = x.shape[0], x.shape[-1]
    keys = jax.random.split(key, 4)
    loud = jnp.quantile(jnp.mean(x, axis=-1), 0.9, axis=-1)  # [b]
    below_db = _uniform(keys[0], rows, 5.0, 35.0)
    spectrum = response(keys[1], rows, num_bands, std=1.0)
    grain = 0.6 * draw_rows(partial(jax.random.normal, keys[2]), x.shape)
    noise = (loud - below_db * (np.log(10) / 10))[:, None, None] + spectrum[:, None] + grain
    noise = jnp.where((_uniform(keys[3], rows, 0.0, 1.0) < rate)[:, None, None], noise, -30.0)
    return jnp.logaddexp(x, noise)


def response(key: KeyArray, rows: int, num_bands: int, *, std: float) -> Float[Array, "b m"]:
    """Draws smooth frequency responses in nats of energy: sums of cosines over the bands."""
    terms = np.cos(np.pi * np.outer(np.arange(_RESPONSE_TERMS), (np.arange(num_bands) + 0.5) / num_bands))
    weights = draw_rows(partial(jax.random.normal, key), (rows, _RESPONSE_TERMS))
    return std * weights @ terms.astype(np.float32)


def add_channel(key: KeyArray, x: Mel, *, std: float, telephone_rate: float) -> Mel:
    """Applies the response of a microphone, and the band of a telephone (300 to 3400 Hz) to some clips."""
    rows, num_bands = x.shape[0], x.shape[-1]
    keys = jax.random.split(key)
    x = x + response(keys[0], rows, num_bands, std=std)[:, None]
    mel = 2595.0 * np.log10(1.0 + np.array([60.0, 300.0, 3400.0, 7600.0]) / 700.0)
    low, high = (mel[1:3] - mel[0]) / (mel[3] - mel[0]) * num_bands
    outside = (np.arange(num_bands) < low) | (np.arange(num_bands) > high)
    telephone = (_uniform(keys[1], rows, 0.0, 1.0) < telephone_rate)[:, None, None] & outside[None, None]
    return jnp.logaddexp(jnp.where(telephone, x - 8.0, x), _FLOOR)


def vary_voice(key: KeyArray, x: Mel, variation: VoiceVariation) -> Mel:
    """Applies all variations to log-mel energies, each clip by its own random draw."""
    keys = jax.random.split(key, 4)
    if variation.max_band_shift or variation.max_band_blur:
        x = vary_bands(keys[0], x, max_shift=variation.max_band_shift, max_blur=variation.max_band_blur)
    if variation.max_echo:
        x = add_room(keys[1], x, max_echo=variation.max_echo)
    if variation.noise_rate:
        x = add_noise(keys[2], x, rate=variation.noise_rate)
    if variation.response_std or variation.telephone_rate:
        x = add_channel(keys[3], x, std=variation.response_std, telephone_rate=variation.telephone_rate)
    return x
