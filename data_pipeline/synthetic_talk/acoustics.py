"""What emotion does to the voice, and the signal processing that does it.

Directions follow the reviews of vocal emotion by Scherer ("Vocal communication of emotion", 2003, table 3)
and Juslin and Laukka ("Communication of emotions in vocal expression and music performance", 2003, table 7):
anger is fast, loud and bright; fear high, fast and trembling; happiness high with a wide range; sadness slow,
soft, low, narrow and dark with breath; surprise very high, wide and rising; disgust slow, low and dark with a
narrow range; contempt slow, low and creaking. The sizes are ours, tuned by ear-free measures: full strength
is clear to a classifier of log-mel statistics, a third of it is ambiguous.
"""

import dataclasses
import math

import numpy as np

from data_pipeline.synthetic_talk.espeak import ESPEAK_RATE_HZ
from deeptalk_jax.types import AUDIO_RATE_HZ, SAMPLES_PER_FRAME

_NEUTRAL_LEVEL_DBFS = -24.0
_FULL_SCALE = 32767.0


@dataclasses.dataclass(frozen=True)
class Prosody:
    """How a voice departs from its calm self; all zero is calm.

    Attributes:
        rate: logarithm of the ratio of speaking rates.
        pitch_semitones: shift of the mean pitch.
        pitch_range: logarithm of the ratio of pitch ranges.
        loudness_db: vocal effort.
        tilt_db: gain per octave above 1 kHz, loss per octave below: positive is bright.
        tremor: 0 to 1, slow modulation of pitch and loudness.
        breath: 0 to 1, aspiration noise.
        creak: 0 to 1, irregular low-frequency modulation of loudness.
        rising: 0 to 1, probability of a question's intonation.
        exclaiming: 0 to 1, probability of an exclamation's intonation.
    """

    rate: float = 0.0
    pitch_semitones: float = 0.0
    pitch_range: float = 0.0
    loudness_db: float = 0.0
    tilt_db: float = 0.0
    tremor: float = 0.0
    breath: float = 0.0
    creak: float = 0.0
    rising: float = 0.0
    exclaiming: float = 0.0


# Rate, pitch, pitch range, loudness, tilt.
EMOTION_PROSODY = {
    "neutral": Prosody(),
    "happy": Prosody(0.2, 4.0, 0.65, 3.5, 1.4, exclaiming=0.6),
    "sad": Prosody(-0.28, -2.0, -0.9, -6.0, -3.0, tremor=0.15, breath=0.5),
    "surprised": Prosody(-0.05, 8.0, 0.9, 2.5, 0.2, breath=0.1, rising=0.8, exclaiming=0.2),
    "fear": Prosody(0.22, 5.5, -0.4, -2.5, 0.3, tremor=0.9, breath=0.35),
    "disgusted": Prosody(-0.26, -1.5, -0.2, -0.5, -2.2, creak=0.3),
    "angry": Prosody(0.1, 0.5, 0.4, 8.5, 3.8, creak=0.3, exclaiming=0.8),
    "contempt": Prosody(-0.18, -3.5, -0.5, -2.5, 1.2, creak=0.95),
}

# Standard deviations from clip to clip, of speakers who feel nothing in particular.
_SPREAD = Prosody(0.07, 1.1, 0.15, 1.8, 0.8, tremor=0.07, breath=0.09, creak=0.07)


def draw_prosody(emotion: str, strength: float, rng: np.random.Generator) -> Prosody:
    """The prosody of one clip.

    Args:
        emotion: a key of `EMOTION_PROSODY`.
        strength: 0 is calm, 1 is full.
        rng: draws what varies from clip to clip.
    """
    direction, spread = EMOTION_PROSODY[emotion], _SPREAD
    values = {}
    for field in dataclasses.fields(Prosody):
        noise = rng.standard_normal() * getattr(spread, field.name)
        values[field.name] = strength * getattr(direction, field.name) + noise
    for name in ("tremor", "breath", "creak", "rising", "exclaiming"):
        values[name] = min(max(values[name], 0.0), 1.0)
    return Prosody(**values)


def render(
    samples: np.ndarray, prosody: Prosody, *, lead_s: float, tail_s: float, rng: np.random.Generator
) -> np.ndarray:
    """Turns the synthesiser's output into the clip's sound.

    Args:
        samples: `[n]` int16 at 22 050 Hz.
        prosody: what rate and pitch have not said already: tilt, tremor, creak, breath, loudness.
        lead_s: silence to put before.
        tail_s: silence to put after.
        rng: draws modulations, noise and microphone gain.

    Returns:
        `[s]` int16 at 16 kHz, a whole number of motion frames long.
    """
    voice = _resample_and_tilt(samples, prosody.tilt_db)
    voice = _modulate(voice, prosody, rng)
    voice = _add_breath(voice, prosody.breath, rng)
    level_db = _NEUTRAL_LEVEL_DBFS + prosody.loudness_db + rng.normal(0.0, 1.0)
    voice *= 10 ** (level_db / 20) / max(_active_level(voice), 1e-6)
    num_lead = round(lead_s * AUDIO_RATE_HZ)
    num_samples = num_lead + len(voice) + round(tail_s * AUDIO_RATE_HZ)
    num_samples += -num_samples % SAMPLES_PER_FRAME
    room_level = 10 ** (rng.uniform(-72.0, -60.0) / 20)
    clip = room_level * rng.standard_normal(num_samples, np.float32)
    clip[num_lead : num_lead + len(voice)] += voice
    return np.round(_limit(clip) * _FULL_SCALE).astype(np.int16)


def frame_level_db(audio: np.ndarray) -> np.ndarray:
    """Root-mean-square level of each motion frame.

    Args:
        audio: `[s]` int16 at 16 kHz, a whole number of frames.

    Returns:
        `[t]` dB relative to full scale, at least -90.
    """
    frames = audio.reshape(-1, SAMPLES_PER_FRAME).astype(np.float32) / _FULL_SCALE
    return 10 * np.log10(np.maximum(np.mean(frames**2, axis=1), 1e-9))


def pitch_hz(audio: np.ndarray, time_s: float) -> float:
    """Pitch around an instant by autocorrelation (70 to 500 Hz), or 0 where the sound is not voiced.

    Args:
        audio: `[s]` int16 at 16 kHz.
        time_s: the instant.
    """
    width = 1024
    start = round(time_s * AUDIO_RATE_HZ) - width // 2
    if start < 0 or start + width > len(audio):
        return 0.0
    window = audio[start : start + width].astype(np.float32)
    spectrum = np.fft.rfft(window - window.mean(), 2 * width)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:width]
    shortest, longest = AUDIO_RATE_HZ // 500, AUDIO_RATE_HZ // 70
    lag = shortest + int(np.argmax(correlation[shortest:longest]))
    return AUDIO_RATE_HZ / lag if correlation[lag] > 0.3 * correlation[0] else 0.0


def _resample_and_tilt(samples: np.ndarray, tilt_db: float) -> np.ndarray:
    """22 050 -> 16 000 Hz and the spectral slope, both in one transform; `[n]` int16 -> `[s]` float32.

    160 / 441 * 2 is the ratio of the rates, so a length that is a multiple of 441 maps to a whole number of
    samples.
    """
    blocks = -(-(len(samples) + 2048) // 441)  # zeros at the end keep the circular ends apart
    blocks += -blocks % 64
    spectrum = np.fft.rfft(samples.astype(np.float32) / _FULL_SCALE, 441 * blocks)
    num_out = 320 * blocks
    spectrum = spectrum[: num_out // 2 + 1]
    frequencies = np.arange(len(spectrum), dtype=np.float32) * np.float32(AUDIO_RATE_HZ / num_out)
    octaves = np.log2(np.clip(frequencies, 125, 8000) / 1000)
    gain = 10 ** (tilt_db * octaves / 20) * (frequencies > 60) * (320 / 441)
    num_kept = len(samples) * AUDIO_RATE_HZ // ESPEAK_RATE_HZ
    return np.fft.irfft(spectrum * gain.astype(np.float32), num_out)[:num_kept].astype(np.float32)


def _modulate(voice: np.ndarray, prosody: Prosody, rng: np.random.Generator) -> np.ndarray:
    """Tremor (5 to 8 Hz, of pitch and loudness) and creak (irregular dips of loudness, 22 to 38 Hz)."""
    time_s = np.arange(len(voice), dtype=np.float32) / AUDIO_RATE_HZ
    tremor_hz, phase, creak_hz = rng.uniform(5.0, 8.0), rng.uniform(0.0, 2 * math.pi), rng.uniform(22.0, 38.0)
    wander = np.cumsum(rng.standard_normal(len(voice) // 800 + 2)) * 0.9  # 50 ms steps, radians
    if prosody.tremor > 0.02:
        wave = np.sin(2 * math.pi * tremor_hz * time_s + phase).astype(np.float32)
        delay = prosody.tremor * 0.035 / (2 * math.pi * tremor_hz) * AUDIO_RATE_HZ  # 3.5 % of pitch at most
        positions = np.arange(len(voice)) + delay * wave
        voice = np.interp(positions, np.arange(len(voice)), voice).astype(np.float32)
        voice = voice * (1 + 0.45 * prosody.tremor * wave)
    if prosody.creak > 0.02:
        drift = np.interp(time_s * 20, np.arange(len(wander)), wander).astype(np.float32)
        pulse = 0.5 + 0.5 * np.cos(2 * math.pi * creak_hz * time_s + drift)
        voice = voice * (1 - 0.85 * prosody.creak * pulse)
    return voice.astype(np.float32)


def _add_breath(voice: np.ndarray, breath: float, rng: np.random.Generator) -> np.ndarray:
    """Noise that rises with frequency and follows the envelope of the voice."""
    if breath <= 0.02:
        return voice
    blocks = np.abs(voice[: len(voice) // 160 * 160]).reshape(-1, 160).mean(axis=1)
    smooth = np.convolve(blocks, np.ones(5, np.float32) / 5, mode="same")
    envelope = np.interp(np.arange(len(voice)), 160 * np.arange(len(smooth)) + 80, smooth).astype(np.float32)
    noise = np.diff(rng.standard_normal(len(voice) + 1, np.float32))  # +6 dB an octave
    return voice + 0.6 * breath * envelope * noise


def _active_level(voice: np.ndarray) -> float:
    """Root-mean-square over the louder half of the 10 ms blocks, so that pauses do not count."""
    energies = np.mean(voice[: len(voice) // 160 * 160].reshape(-1, 160) ** 2, axis=1)
    return float(np.sqrt(np.mean(np.sort(energies)[len(energies) // 2 :])))


def _limit(clip: np.ndarray) -> np.ndarray:
    """Leaves values below 0.7 alone and bends the rest to stay below 1."""
    knee = 0.7
    over = np.maximum(np.abs(clip) - knee, 0) / (1 - knee)
    return np.where(over > 0, np.sign(clip) * (knee + (1 - knee) * np.tanh(over)), clip)
