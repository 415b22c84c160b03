"""Effects of emotion on the voice, and the signal processing that applies them.

The directions of the effects follow the reviews of vocal emotion by Scherer ("Vocal communication of emotion", 2003,
table 3) and Juslin and Laukka ("Communication of emotions in vocal expression and music performance", 2003, table 7).
Anger is fast, loud and bright. Fear is high, fast and trembling. Happiness is high with a wide pitch range. Sadness is
slow, soft, low, dark and breathy with a narrow range. Surprise is very high, wide and rising. Disgust is slow, low and
dark with a narrow range. Contempt is slow, low and creaky. The magnitudes were chosen for this corpus, so that a
classifier of log-mel statistics separates emotions of full strength well and emotions of a third of it poorly.
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
    """Deviation of a voice from calm speech; all zeros are calm speech.

    Attributes:
        rate: Logarithm of the speaking rate relative to calm speech.
        pitch_semitones: Shift of the mean pitch in semitones.
        pitch_range: Logarithm of the pitch range relative to calm speech.
        loudness_db: Vocal effort in dB.
        tilt_db: Spectral tilt in dB per octave around 1 kHz; positive values make the voice brighter.
        tremor: Depth of a slow modulation of pitch and loudness, 0 to 1.
        breath: Level of aspiration noise, 0 to 1.
        creak: Depth of an irregular low-frequency modulation of loudness, 0 to 1.
        rising: Probability of question intonation, 0 to 1.
        exclaiming: Probability of exclamation intonation, 0 to 1.
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


# Positional arguments: rate, pitch_semitones, pitch_range, loudness_db, tilt_db.
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

# Standard deviation of each field from clip to clip, for every emotion.
_SPREAD = Prosody(0.07, 1.1, 0.15, 1.8, 0.8, tremor=0.07, breath=0.09, creak=0.07)


def draw_prosody(emotion: str, strength: float, rng: np.random.Generator) -> Prosody:
    """Draws the prosody of one clip.

    Args:
        emotion: A key of `EMOTION_PROSODY`.
        strength: Strength of the emotion; 0 is calm, 1 is full strength.
        rng: Random generator for the variation from clip to clip.
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
    """Turns the output of the synthesiser into the audio of a clip.

    Args:
        samples: `[s]` int16 samples at 22 050 Hz.
        prosody: Prosody of the clip. Only tilt, tremor, creak, breath and loudness are applied here; the synthesiser
            has applied rate, pitch and intonation already.
        lead_s: Silence before the speech, in seconds.
        tail_s: Silence after the speech, in seconds.
        rng: Random generator for modulations, noise and microphone gain.

    Returns:
        `[s]` int16 samples at 16 kHz, a whole number of motion frames long.
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
    """Computes the root-mean-square level of each motion frame.

    Args:
        audio: `[s]` int16 samples at 16 kHz, a whole number of motion frames long.

    Returns:
        `[t]` level in dB relative to full scale, at least -90.
    """
    frames = audio.reshape(-1, SAMPLES_PER_FRAME).astype(np.float32) / _FULL_SCALE
    return 10 * np.log10(np.maximum(np.mean(frames**2, axis=1), 1e-9))


def pitch_hz(audio: np.ndarray, time_s: float) -> float:
    """Estimates the pitch around a time by autocorrelation (70 to 500 Hz).

    Args:
        audio: `[s]` int16 samples at 16 kHz.
        time_s: Centre of the analysis window, in seconds.

    Returns:
        The pitch in Hz; 0 if the sound is unvoiced, or if the window exceeds the clip.
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
    """Resamples from 22 050 to 16 000 Hz and tilts the spectrum, both in one Fourier transform.

    The ratio of the rates is 320 / 441, so a length that is a multiple of 441 maps to a whole number of samples.
    `samples` is `[s]` int16; the result is `[s]` float32.
    """
    # The transform is circular: zeros at the end keep the end of the speech from wrapping around to its start.
    blocks = -(-(len(samples) + 2048) // 441)
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
    """Adds tremor (pitch and loudness vary at 5 to 8 Hz) and creak (irregular dips of loudness at 22 to 38 Hz)."""
    time_s = np.arange(len(voice), dtype=np.float32) / AUDIO_RATE_HZ
    tremor_hz, phase, creak_hz = rng.uniform(5.0, 8.0), rng.uniform(0.0, 2 * math.pi), rng.uniform(22.0, 38.0)
    wander = (
        np.cumsum(rng.standard_normal(len(voice) // 800 + 2)) * 0.9
    )  # random walk in radians, in steps of 50 ms
    if prosody.tremor > 0.02:
        wave = np.sin(2 * math.pi * tremor_hz * time_s + phase).astype(np.float32)
        delay = (
            prosody.tremor * 0.035 / (2 * math.pi * tremor_hz) * AUDIO_RATE_HZ
        )  # at most 3.5 % of the pitch
        positions = np.arange(len(voice)) + delay * wave
        voice = np.interp(positions, np.arange(len(voice)), voice).astype(np.float32)
        voice = voice * (1 + 0.45 * prosody.tremor * wave)
    if prosody.creak > 0.02:
        drift = np.interp(time_s * 20, np.arange(len(wander)), wander).astype(np.float32)
        pulse = 0.5 + 0.5 * np.cos(2 * math.pi * creak_hz * time_s + drift)
        voice = voice * (1 - 0.85 * prosody.creak * pulse)
    return voice.astype(np.float32)


def _add_breath(voice: np.ndarray, breath: float, rng: np.random.Generator) -> np.ndarray:
    """Adds noise that rises with frequency and follows the envelope of the voice."""
    if breath <= 0.02:
        return voice
    blocks = np.abs(voice[: len(voice) // 160 * 160]).reshape(-1, 160).mean(axis=1)
    smooth = np.convolve(blocks, np.ones(5, np.float32) / 5, mode="same")
    envelope = np.interp(np.arange(len(voice)), 160 * np.arange(len(smooth)) + 80, smooth).astype(np.float32)
    noise = np.diff(rng.standard_normal(len(voice) + 1, np.float32))  # rises by 6 dB per octave
    return voice + 0.6 * breath * envelope * noise


def _active_level(voice: np.ndarray) -> float:
    """Computes the root-mean-square over the louder half of all 10 ms blocks, so that pauses do not count."""
    energies = np.mean(voice[: len(voice) // 160 * 160].reshape(-1, 160) ** 2, axis=1)
    return float(np.sqrt(np.mean(np.sort(energies)[len(energies) // 2 :])))


def _limit(clip: np.ndarray) -> np.ndarray:
    """Compresses amplitudes above 0.7 so that they stay below 1."""
    knee = 0.7
    over = np.maximum(np.abs(clip) - knee, 0) / (1 - knee)
    return np.where(over > 0, np.sign(clip) * (knee + (1 - knee) * np.tanh(over)), clip)
