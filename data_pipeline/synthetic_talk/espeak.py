"""Speech synthesis with eSpeak NG through ctypes: samples and the times of all phonemes.

eSpeak keeps state between sentences (resonators, noise, the phase of the voice, random numbers), and no call resets it:
the same sentence spoken twice differs by a sample or two in length. A clip must not depend on the sentences before it,
so `speak` loads the library again for each sentence (1.4 ms), which restores its initial memory image.
"""

import _ctypes
import contextlib
import ctypes
import functools
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import espeakng_loader
import numpy as np

ESPEAK_RATE_HZ = 22_050
PAUSE = ""

_AUDIO_OUTPUT_SYNCHRONOUS = 2
_BUFFER_MS = 2_000
_PHONEME_EVENTS_AS_IPA = 0x1 | 0x2
_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_POSITION_CHARACTER = 1
_EVENT_END_OF_LIST = 0
_EVENT_PHONEME = 7
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_VOLUME_PERCENT = 60  # several variants clip at 100


class Phoneme(NamedTuple):
    """One phoneme of an utterance.

    Attributes:
        symbol: IPA with stress and length marks in eSpeak's spelling; `PAUSE` for silence.
        start_s: Start of the phoneme, in seconds.
        end_s: Start of the next phoneme, in seconds.
    """

    symbol: str
    start_s: float
    end_s: float


class Utterance(NamedTuple):
    """Speech of one sentence.

    Attributes:
        samples: `[s]` int16 samples at `ESPEAK_RATE_HZ`.
        phonemes: Phonemes in order, without gaps.
    """

    samples: np.ndarray
    phonemes: tuple[Phoneme, ...]


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


@functools.cache
def _check_that_library_unloads(path: str) -> None:
    """Raises RuntimeError if the library, and with it its state, stays in memory after it is closed."""
    _ctypes.dlclose(ctypes.CDLL(path)._handle)
    with contextlib.suppress(OSError):
        ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        raise RuntimeError(
            f"{path} stays loaded after dlclose, so clips would depend on their order; expected no other user of "
            "the library in this process"
        )


@contextlib.contextmanager
def _fresh_library() -> Iterator[ctypes.CDLL]:
    """Loads and initialises the library in the state that it has in a new process."""
    path = str(espeakng_loader.get_library_path())
    _check_that_library_unloads(path)
    library = ctypes.CDLL(path)
    try:
        data_path = str(espeakng_loader.get_data_path()).encode()
        options = _PHONEME_EVENTS_AS_IPA | _DONT_EXIT
        rate_hz = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, _BUFFER_MS, data_path, options)
        if rate_hz != ESPEAK_RATE_HZ:
            raise RuntimeError(
                f"espeak_Initialize returned {rate_hz}; expected a rate of {ESPEAK_RATE_HZ} Hz"
            )
        yield library
        library.espeak_Terminate()
    finally:
        _ctypes.dlclose(library._handle)


def _check_variant(voice: str) -> None:
    """Raises ValueError for an unknown variant, for which eSpeak would silently use the base voice."""
    _, _, variant = voice.partition("+")
    folder = Path(str(espeakng_loader.get_data_path())) / "voices" / "!v"
    if variant and not (folder / variant).is_file():
        raise ValueError(f"eSpeak has no voice variant {variant!r} (requested voice: {voice!r})")


def speak(
    text: str, voice: str, *, seed: int, rate_wpm: float, pitch: float, pitch_range: float
) -> Utterance:
    """Synthesises a sentence.

    Args:
        text: An English sentence. Its full stop, question mark or exclamation mark sets the intonation.
        voice: eSpeak language and variant, such as `en-us+f3`.
        seed: Seed of the aspiration noise and the flutter of the voice.
        rate_wpm: Speaking rate in words per minute, clipped to 80 to 350.
        pitch: eSpeak pitch, clipped to 0 to 100; 50 is the default of the voice, and 50 more is about an octave.
        pitch_range: eSpeak pitch range, clipped to 0 to 100; 50 is the default of the voice, 0 is monotone.

    Returns:
        The samples and phonemes, which depend on the arguments only and not on sentences before.

    Raises:
        ValueError: The voice or its variant does not exist.
        RuntimeError: The library fails or cannot be reset.
    """
    _check_variant(voice)
    chunks: list[bytes] = []
    events: list[tuple[str, int]] = []

    @_Callback
    def receive(samples: int | None, num_samples: int, event_list: "ctypes._Pointer[_Event]") -> int:
        index = 0
        while event_list[index].type != _EVENT_END_OF_LIST:
            event = event_list[index]
            if event.type == _EVENT_PHONEME:
                events.append((event.id.string.decode("utf-8"), event.sample))
            index += 1
        if samples and num_samples:
            chunks.append(ctypes.string_at(samples, 2 * num_samples))
        return 0

    with _fresh_library() as library:
        library.espeak_SetSynthCallback(receive)
        library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        if library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"eSpeak has no voice {voice!r}")
        settings = (_RATE, rate_wpm, 80, 350), (_PITCH, pitch, 0, 100), (_RANGE, pitch_range, 0, 100)
        for parameter, value, low, high in (*settings, (_VOLUME, _VOLUME_PERCENT, 0, 200)):
            library.espeak_SetParameter(parameter, int(min(max(round(value), low), high)), 0)
        encoded = text.encode()
        size = ctypes.c_size_t(len(encoded) + 1)
        status = library.espeak_Synth(encoded, size, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)
        if status or not chunks:
            raise RuntimeError(f"eSpeak returned no samples for {text!r} in {voice!r} (status {status})")
    samples = np.frombuffer(b"".join(chunks), np.int16)
    return Utterance(samples, _phonemes(events, len(samples)))


def _phonemes(events: list[tuple[str, int]], num_samples: int) -> tuple[Phoneme, ...]:
    """Returns phonemes for (symbol, first sample) pairs; each lasts until the next, and silence fills both ends."""
    bounds = [(PAUSE, 0), *events, (PAUSE, num_samples)]
    phonemes = []
    for (symbol, start), (_, end) in itertools.pairwise(bounds):
        if end > start:
            phonemes.append(Phoneme(symbol, start / ESPEAK_RATE_HZ, end / ESPEAK_RATE_HZ))
    return tuple(phonemes)
