"""Animates many sound files and writes their motions; a file that fails is reported and the others continue."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deeptalk_jax.errors import Interrupted, UserError
from deeptalk_jax.files import printable
from deeptalk_jax.inference.emotion_classes import EMOTION_FORMATS, EmotionClasses, write_emotions
from deeptalk_jax.inference.find_sounds import FoundSound, LeftOut, left_out_lines, result_path
from deeptalk_jax.inference.motion import Motion
from deeptalk_jax.progress import progress_bar
from deeptalk_jax.signals import received_signal


class Outcome(NamedTuple):
    """Outcome of one file.

    Attributes:
        audio: the sound file.
        seconds: length of each of its motions; 0 on failure.
        problem: reason of the failure, without the name of the file; empty on success.
        renamed: first result below the output directory, where its name is not the stem of the file; else empty.
    """

    audio: Path
    seconds: float
    problem: str
    renamed: str = ""


def animate_files(
    animate_each: Callable[..., Iterable[tuple[int, Sequence[Motion] | Exception]]],
    sounds: Sequence[FoundSound],
    out: Path,
    formats: Sequence[str],
    *,
    classify: Callable[[np.ndarray], EmotionClasses] | None = None,
) -> list[Outcome]:
    """Writes `out/<target>.<format>` for every sound, as soon as its motion is done.

    Several motions of a sound are written as `out/<target>_<number>.<format>`, with numbers from 0. The formats of
    `EMOTION_FORMATS` describe the sound, so each sound has one of each.

    Args:
        animate_each: `(files, progress=)` to an iterator of index and motions or exception, in any order, such as
            `DeepTalk.animate_each` with `num_samples`.
        sounds: sound files with distinct targets.
        out: an existing directory.
        formats: formats to write, of `motion.FORMATS` and `emotion_classes.EMOTION_FORMATS`.
        classify: names the emotion of a waveform at 16 kHz, such as `DeepTalk.classify_emotion`; needed for the formats
            of `EMOTION_FORMATS` only.

    Returns:
        One outcome per sound, in the order of the sounds. If a signal ends the run (`Interrupted`), outcomes of the
        sounds that are done.
    """
    outcomes: dict[int, Outcome] = {}
    seconds_made = 0.0

    def progress(seconds: float) -> None:
        nonlocal seconds_made
        seconds_made += seconds
        bar.set_postfix_str(f"{seconds_made:.0f} s of motion")

    # This call checks the settings, so that their errors come before the bar appears.
    results = animate_each([sound.path for sound in sounds], progress=progress)
    with progress_bar(total=len(sounds), desc="animating", unit="file", leave=len(sounds) > 1) as bar:
        try:
            for number, motions in results:
                outcomes[number] = _write(sounds[number], motions, out, formats, classify)
                bar.update()
                if received_signal() is not None:
                    break  # a library has caught the exception that the signal raised
        except Interrupted:
            pass  # the outcomes tell which sounds are done
    return [outcomes[number] for number in sorted(outcomes)]


def _write(
    sound: FoundSound,
    motions: Sequence[Motion] | Exception,
    out: Path,
    formats: Sequence[str],
    classify: Callable[[np.ndarray], EmotionClasses] | None,
) -> Outcome:
    """Saves motions in all formats; any exception becomes the problem of the outcome."""
    file, target = sound
    try:
        if isinstance(motions, Exception):
            raise motions
        # All files of a run follow the same rule, so distinct targets give distinct names.
        numbers = [""] if len(motions) == 1 else [f"_{number}" for number in range(len(motions))]
        (out / target).parent.mkdir(parents=True, exist_ok=True)
        for number, motion in zip(numbers, motions, strict=True):
            for kind in formats:
                if kind not in EMOTION_FORMATS:
                    motion.save(out / result_path(target, f"{number}.{kind}"))
        if of_emotions := [kind for kind in formats if kind in EMOTION_FORMATS]:
            classes = classify(motions[0].waveform)
            for kind in of_emotions:
                write_emotions(out / result_path(target, f".{kind}"), kind, classes)
    except UserError as error:
        return Outcome(file, 0.0, str(error).removeprefix(f"{file}: "))
    except Exception as error:  # one file must not end the whole run
        return Outcome(file, 0.0, f"{type(error).__name__}: {error}".splitlines()[0])
    renamed = "" if target.name == file.stem else str(result_path(target, f"{numbers[0]}.{formats[0]}"))
    return Outcome(file, len(motions[0]) / motions[0].fps, "", renamed)


def outcome_table(outcomes: Sequence[Outcome], left_out: Sequence[LeftOut] = ()) -> str:
    """Formats one line per file, failures last, then the files of folders that were left out, and a count."""
    good = [outcome for outcome in outcomes if not outcome.problem]
    bad = [outcome for outcome in outcomes if outcome.problem]
    lines = [
        f"ok      {outcome.seconds:8.2f} s  {outcome.audio}"
        + (f" -> {outcome.renamed}" if outcome.renamed else "")
        for outcome in good
    ]
    lines += [f"failed              {outcome.audio}: {outcome.problem}" for outcome in bad]
    lines += [f"left out            {line}" for line in left_out_lines(left_out)]
    count = f"{len(good)} animated, {len(bad)} failed"
    lines.append(f"{count}, {len(left_out)} left out" if left_out else count)
    return "\n".join(map(printable, lines))
