"""Speech synthesis with eSpeak NG through ctypes: samples and the time of every phoneme.

eSpeak keeps state between sentences (resonators, noise, the phase of the voice, its random numbers) that no
call resets: the same sentence spoken twice differs by a sample or two in length. A clip must not depend on
what was spoken before it, so `speak` loads the library anew each time (1.4 ms), which starts from the same
memory image.
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
_VOLUME_PERCENT = 60  # at 100 several variants saturate


class Phoneme(NamedTuple):
    """One phoneme event.

    Attributes:
        symbol: IPA with stress and length marks, as eSpeak spells it; `PAUSE` for silence.
        start_s: where it begins, in seconds.
        end_s: where the next one begins.
    """

    symbol: str
    start_s: float
    end_s: float


class Utterance(NamedTuple):
    """What the synthesiser said.

    Attributes:
        samples: `[s]` int16 at `ESPEAK_RATE_HZ`.
        phonemes: in order, without gaps.
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
    """Raises RuntimeError where closing the library keeps it in memory, and with it its state."""
    _ctypes.dlclose(ctypes.CDLL(path)._handle)
    with contextlib.suppress(OSError):
        ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        raise RuntimeError(
            f"{path} stays loaded after dlclose (another user of it in this process?): "
            "clips would depend on the order in which they are made"
        )


@contextlib.contextmanager
def _fresh_library() -> Iterator[ctypes.CDLL]:
    """The library, initialised, in the state that a new process would see."""
    path = str(espeakng_loader.get_library_path())
    _check_that_library_unloads(path)
    library = ctypes.CDLL(path)
    try:
        data_path = str(espeakng_loader.get_data_path()).encode()
        options = _PHONEME_EVENTS_AS_IPA | _DONT_EXIT
        rate_hz = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, _BUFFER_MS, data_path, options)
        if rate_hz != ESPEAK_RATE_HZ:
            raise RuntimeError(f"espeak_Initialize gave {rate_hz}, expected a rate of {ESPEAK_RATE_HZ} Hz")
        yield library
        library.espeak_Terminate()
    finally:
        _ctypes.dlclose(library._handle)


def _check_variant(voice: str) -> None:
    """An unknown variant would silently give the base voice."""
    _, _, variant = voice.partition("+")
    folder = Path(str(espeakng_loader.get_data_path())) / "voices" / "!v"
    if variant and not (folder / variant).is_file():
        raise ValueError(f"eSpeak has no voice variant {variant!r} (asked for {voice!r})")


def speak(
    text: str, voice: str, *, seed: int, rate_wpm: float, pitch: float, pitch_range: float
) -> Utterance:
    """Says a sentence.

    Args:
        text: English, ended by a full stop, a question mark or an exclamation mark, which set the intonation.
        voice: language and variant, such as `en-us+f3`.
        seed: for the aspiration noise and the flutter of the voice.
        rate_wpm: words a minute, 80 to 350 (clipped).
        pitch: 0 to 100 (clipped); 50 is the voice's own, 50 more is about an octave up.
        pitch_range: 0 to 100 (clipped); 50 is the voice's own, 0 is a monotone.

    Returns:
        The samples and the phonemes; the same for the same arguments, whatever was spoken before.

    Raises:
        ValueError: the voice or its variant does not exist.
        RuntimeError: the library fails, or cannot be reset.
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
            raise RuntimeError(f"eSpeak said nothing for {text!r} in {voice!r} (status {status})")
    samples = np.frombuffer(b"".join(chunks), np.int16)
    return Utterance(samples, _phonemes(events, len(samples)))


def _phonemes(events: list[tuple[str, int]], num_samples: int) -> tuple[Phoneme, ...]:
    """Phonemes from (symbol, first sample) pairs: each lasts until the next, silence fills both ends."""
    bounds = [(PAUSE, 0), *events, (PAUSE, num_samples)]
    phonemes = []
    for (symbol, start), (_, end) in itertools.pairwise(bounds):
        if end > start:
            phonemes.append(Phoneme(symbol, start / ESPEAK_RATE_HZ, end / ESPEAK_RATE_HZ))
    return tuple(phonemes)
