"""Animates many sound files and writes their motions; a file that fails is reported and the others continue."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.emotion_classes import EMOTION_FORMATS, EmotionClasses, write_emotions
from deeptalk_jax.inference.motion import Motion
from deeptalk_jax.progress import progress_bar


class Outcome(NamedTuple):
    """Outcome of one file.

    Attributes:
        audio: the sound file.
        seconds: length of each of its motions; 0 on failure.
        problem: reason of the failure, without the name of the file; empty on success.
    """

    audio: Path
    seconds: float
    problem: str


def animate_files(
    animate_each: Callable[..., Iterable[tuple[int, Sequence[Motion] | Exception]]],
    files: Sequence[Path],
    out: Path,
    formats: Sequence[str],
    *,
    classify: Callable[[np.ndarray], EmotionClasses] | None = None,
) -> list[Outcome]:
    """Writes `out/<stem>.<format>` for every file, as soon as its motion is done.

    Several motions of a file are written as `out/<stem>_<number>.<format>`, with numbers from 0. The formats of
    `EMOTION_FORMATS` describe the sound, so a file has one of each.

    Args:
        animate_each: `(files, progress=)` to pairs of index and motions or exception, in any order, such as
            `DeepTalk.animate_each` with `num_samples`.
        files: sound files. If several have the same stem, the first one that succeeds is written.
        out: an existing directory.
        formats: formats to write, of `motion.FORMATS` and `emotion_classes.EMOTION_FORMATS`.
        classify: names the emotion of a waveform at 16 kHz, such as `DeepTalk.classify_emotion`; needed for the formats
            of `EMOTION_FORMATS` only.

    Returns:
        One outcome per file, in the order of the files.
    """
    outcomes: dict[int, Outcome] = {}
    rounds = _rounds_of_distinct_stems(files)
    seconds_made = 0.0
    with progress_bar(total=len(files), desc="animating", unit="file", leave=len(files) > 1) as bar:

        def progress(seconds: float) -> None:
            nonlocal seconds_made
            seconds_made += seconds
            bar.set_postfix_str(f"{seconds_made:.0f} s of motion")

        writers: dict[str, Path] = {}
        for numbers in rounds:
            free = [number for number in numbers if files[number].stem not in writers]
            for number in set(numbers) - set(free):
                winner = writers[files[number].stem]
                problem = f"would overwrite the result of {winner} (same name)"
                outcomes[number] = Outcome(files[number], 0.0, problem)
                bar.update()
            for position, motions in animate_each([files[number] for number in free], progress=progress):
                number = free[position]
                outcomes[number] = outcome = _write(files[number], motions, out, formats, classify)
                if not outcome.problem:
                    writers[files[number].stem] = files[number]
                bar.update()
    return [outcomes[number] for number in range(len(files))]


def _rounds_of_distinct_stems(files: Sequence[Path]) -> list[list[int]]:
    """Groups file numbers into rounds of distinct stems; the n-th file of a stem is in round n.

    A file runs only after the files of the same stem before it, because it is skipped if one of those succeeds.
    """
    rounds: list[list[int]] = []
    seen = Counter()
    for number, file in enumerate(files):
        if seen[file.stem] == len(rounds):
            rounds.append([])
        rounds[seen[file.stem]].append(number)
        seen[file.stem] += 1
    return rounds


def _write(
    file: Path,
    motions: Sequence[Motion] | Exception,
    out: Path,
    formats: Sequence[str],
    classify: Callable[[np.ndarray], EmotionClasses] | None,
) -> Outcome:
    """Saves motions in all formats; any exception becomes the problem of the outcome."""
    try:
        if isinstance(motions, Exception):
            raise motions
        # All files of a run follow the same rule, so distinct stems give distinct names.
        names = [file.stem] if len(motions) == 1 else [f"{file.stem}_{n}" for n in range(len(motions))]
        for name, motion in zip(names, motions, strict=True):
            for kind in formats:
                if kind not in EMOTION_FORMATS:
                    motion.save(out / f"{name}.{kind}")
        if of_emotions := [kind for kind in formats if kind in EMOTION_FORMATS]:
            classes = classify(motions[0].waveform)
            for kind in of_emotions:
                write_emotions(out / f"{file.stem}.{kind}", kind, classes)
    except UserError as error:
        return Outcome(file, 0.0, str(error).removeprefix(f"{file}: "))
    except Exception as error:  # one file must not end the whole run
        return Outcome(file, 0.0, f"{type(error).__name__}: {error}".splitlines()[0])
    return Outcome(file, len(motions[0]) / motions[0].fps, "")


def outcome_table(outcomes: Sequence[Outcome]) -> str:
    """Formats one line per file, failures last, and a count."""
    good = [outcome for outcome in outcomes if not outcome.problem]
    bad = [outcome for outcome in outcomes if outcome.problem]
    lines = [f"ok      {outcome.seconds:8.2f} s  {outcome.audio}" for outcome in good]
    lines += [f"failed              {outcome.audio}: {outcome.problem}" for outcome in bad]
    return "\n".join([*lines, f"{len(good)} animated, {len(bad)} failed"])
