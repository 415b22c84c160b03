"""Small speech encoder that is trained from scratch: log-mel spectrogram, convolutions and transformer.

It replaces the pretrained encoders (wav2vec2, emotion2vec) if their weights are not available or not worth their cost,
and has the same interface: waveform -> `SpeechFeatures`. It is not part of DEEPTalk.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.masks import length_mask, zero_padding
from deeptalk_jax.models.attention_bias import symmetric_alibi
from deeptalk_jax.models.speech.frontend import WAV2VEC2_WAVEFORM_EPS, prepare_waveform
from deeptalk_jax.models.speech.voice_variation import VoiceVariation, vary_voice
from deeptalk_jax.models.transformer import TransformerEncoder
from deeptalk_jax.types import AUDIO_RATE_HZ, MOTION_RATE_HZ, Array, SpeechFeatures

HOP_SAMPLES = 160  # 10 ms
WINDOW_SAMPLES = 400  # 25 ms
RATES_HZ = (2 * MOTION_RATE_HZ, MOTION_RATE_HZ)


def fft_size(window_samples: int) -> int:
    """Returns the smallest power of two that is not below `window_samples`."""
    return 1 << (window_samples - 1).bit_length()


def mel_filterbank(
    num_mels: int, window_samples: int = WINDOW_SAMPLES, *, low_hz: float = 60.0, high_hz: float = 7600.0
) -> np.ndarray:
    """Returns `[fft_size / 2 + 1, num_mels]` triangular filters with peak 1, evenly spaced on the HTK mel scale.

    Equals `transformers.audio_utils.mel_filter_bank(..., norm=None, mel_scale="htk")` (tests/models/speech), which is
    not used because importing transformers takes 0.9 s and inference must not import it.
    """

    def to_mel(hz):
        return 2595.0 * np.log10(1.0 + hz / 700.0)

    edges_mel = np.linspace(to_mel(low_hz), to_mel(high_hz), num_mels + 2)
    edges_hz = 700.0 * (10.0 ** (edges_mel / 2595.0) - 1.0)
    size = fft_size(window_samples)
    bins_hz = np.arange(size // 2 + 1) * (AUDIO_RATE_HZ / size)
    rising = (bins_hz[:, None] - edges_hz[None, :-2]) / np.diff(edges_hz)[None, :-1]
    falling = (edges_hz[None, 2:] - bins_hz[:, None]) / np.diff(edges_hz)[None, 1:]
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def log_mel(
    waveform: Float[Array, "b s"],
    num_mels: int,
    window_samples: int = WINDOW_SAMPLES,
    hop_samples: int = HOP_SAMPLES,
) -> Float[Array, "b f m"]:
    """Returns log-mel energies, one frame per hop; frame i is centred on sample `(i + 1 / 2) * hop_samples`."""
    num_frames = math.ceil(waveform.shape[1] / hop_samples)
    margin = (window_samples - hop_samples) // 2
    padded = jnp.pad(waveform, ((0, 0), (margin, window_samples + hop_samples)))
    starts = np.arange(num_frames) * hop_samples
    frames = padded[:, starts[:, None] + np.arange(window_samples)]  # [b, f, w]
    window = np.hanning(window_samples + 1)[:-1].astype(np.float32)
    # [b, f, w] -> [b, f, fft_size / 2 + 1]
    power = jnp.square(jnp.abs(jnp.fft.rfft(frames * window[None, None], fft_size(window_samples))))
    # The floor keeps digital silence finite; it is 60 dB below a full-scale normalised voice.
    return jnp.log(power @ mel_filterbank(num_mels, window_samples) + 1e-2)


def without_band_means(x: Float[Array, "b f m"], mask: Bool[Array, "b f"]) -> Float[Array, "b f m"]:
    """Flattens the mean spectrum of the loud parts of every clip, so that voices and microphones look alike.

    Cepstral mean normalisation (Atal, 1974) without the loudness, which tells speech from silence. Frames are weighted
    by the square root of their energy: silence, however long, does not count.
    """
    loudness = jnp.mean(x, axis=-1)  # [b, f], nats of energy
    weights = jax.nn.softmax(0.5 * loudness, axis=-1, where=mask)
    spectrum = jnp.einsum("bf,bfm->bm", weights, x)
    return x - (spectrum - jnp.mean(spectrum, axis=-1, keepdims=True))[:, None]


class MelEncoder(nn.Module):
    """Log-mel spectrogram, convolutions of stride 2 down to the rate of the features, and transformer layers.

    Attributes:
        dim: size of a feature.
        num_mels: number of mel bands.
        num_layers: transformer layers after the convolutions.
        num_heads: attention heads.
        window_samples: window of the spectrum. The common 25 ms blurs the harmonics of a voice; 64 ms resolves its
            pitch.
        hop_samples: hop of the spectrum. Each convolution doubles it, up to the hop of the features.
        rate_hz: features per second, 50 or 25.
        dropout_rate: dropout probability of the transformer layers.
        max_band_shift, max_band_blur, max_echo, noise_rate, response_std, telephone_rate: strengths of the random
            variation of training clips, see `voice_variation.VoiceVariation`; 0 means none.
        subtract_band_means: whether the mean spectrum of each clip is removed, see `without_band_means`.
        waveform_eps: added to the variance when every clip is normalised to unit variance; None does not normalise.
        dtype: compute type of the layers; spectrogram and softmax are float32.
    """

    dim: int = 128
    num_mels: int = 64
    num_layers: int = 1
    num_heads: int = 4
    window_samples: int = WINDOW_SAMPLES
    hop_samples: int = HOP_SAMPLES
    rate_hz: int = 50
    dropout_rate: float = 0.1
    max_band_shift: float = 0.0
    max_band_blur: float = 0.0
    max_echo: float = 0.0
    noise_rate: float = 0.0
    response_std: float = 0.0
    telephone_rate: float = 0.0
    subtract_band_means: bool = False
    waveform_eps: float | None = WAV2VEC2_WAVEFORM_EPS
    dtype: jnp.dtype = jnp.float32

    @property
    def feature_dim(self) -> int:
        """Size of one output feature."""
        return self.dim

    def _strides(self) -> tuple[int, int]:
        """Returns the hop of the features in samples, and the number of convolutions that double the hop up to it."""
        if self.rate_hz not in RATES_HZ:
            raise ConfigError(f"rate_hz={self.rate_hz} is not one of {RATES_HZ}")
        if self.window_samples < self.hop_samples:
            raise ConfigError(
                f"window_samples={self.window_samples}: expected at least hop_samples={self.hop_samples}"
            )
        stride_samples = AUDIO_RATE_HZ // self.rate_hz
        num_halvings = max(stride_samples // max(self.hop_samples, 1), 1).bit_length() - 1
        if self.hop_samples << num_halvings != stride_samples:
            raise ConfigError(
                f"hop_samples={self.hop_samples}: expected {stride_samples} divided by a power of two, "
                f"for rate_hz={self.rate_hz}"
            )
        return stride_samples, num_halvings

    @nn.compact
    def __call__(
        self,
        waveform: Float[Array, "b s"],
        num_samples: Int[Array, " b"],
        *,
        num_frames: int | None = None,
        train: bool = False,
    ) -> SpeechFeatures:
        """Encodes a padded batch.

        Args:
            waveform: samples at 16 kHz in [-1, 1].
            num_samples: number of valid samples of every clip.
            num_frames: static number of output features; None means as many as the padded waveform gives.
            train: whether dropout and the shift of bands are applied (stream `dropout`).

        Raises:
            ConfigError: `rate_hz` is not 50 or 25, `hop_samples` times a power of two is not the hop of the features,
                or `window_samples` is below `hop_samples`.
        """
        stride_samples, num_halvings = self._strides()
        if num_frames is None:
            num_frames = math.ceil(waveform.shape[1] / stride_samples)
        missing = num_frames * stride_samples - waveform.shape[1]
        waveform = jnp.pad(waveform, ((0, 0), (0, max(missing, 0))))[:, : num_frames * stride_samples]
        num_samples = jnp.minimum(num_samples, waveform.shape[1])

        waveform, num_samples = prepare_waveform(waveform, num_samples, eps=self.waveform_eps)
        # [b, s] -> [b, f, m]
        x = log_mel(waveform, self.num_mels, self.window_samples, self.hop_samples)
        if train and any(variation := VoiceVariation(*(getattr(self, n) for n in VoiceVariation._fields))):
            x = vary_voice(self.make_rng("dropout"), x, variation)
        lengths = -(-num_samples // self.hop_samples)
        if self.subtract_band_means:
            x = without_band_means(x, length_mask(lengths, x.shape[1]))
        # [b, f, m] -> [b, t, d]
        x = nn.Dense(self.dim, dtype=self.dtype, name="mel_map")(x)
        for index in range(num_halvings):
            x = zero_padding(x, length_mask(lengths, x.shape[1]))
            x = nn.Conv(
                self.dim, (5,), strides=(2,), padding=((2, 1),), dtype=self.dtype, name=f"conv_{index}"
            )(x)
            lengths = -(-lengths // 2)
            x = nn.LayerNorm(dtype=self.dtype, name=f"norm_{index}")(nn.gelu(x))
        mask = length_mask(lengths, x.shape[1])
        # A bias by distance instead of position codes, because training windows are short and clips have any length.
        bias = symmetric_alibi(self.num_heads, x.shape[1])
        x = TransformerEncoder(
            self.num_layers,
            self.num_heads,
            2 * self.dim,
            "gelu",
            self.dropout_rate,
            self.dtype,
            name="transformer",
        )(x, bias=bias, mask=mask, train=train)
        return SpeechFeatures(zero_padding(x, mask), mask)
