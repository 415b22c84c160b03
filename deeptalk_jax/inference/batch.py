"""Many files in batches: a bad one is reported and the rest goes on."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.motion import Motion


class Outcome(NamedTuple):
    """What became of one file.

    Attributes:
        audio: the input.
        seconds: length of its motion, or of each of its samples; 0 on failure.
        problem: what went wrong, without the name of the input; empty on success.
    """

    audio: Path
    seconds: float
    problem: str


def animate_files(
    sample_each: Callable[..., Iterable[tuple[int, Sequence[Motion] | Exception]]],
    files: Sequence[Path],
    out: Path,
    formats: Sequence[str],
) -> list[Outcome]:
    """Writes `out/<stem>.<format>` for every file, as soon as its motion is there.

    Several samples of a file are written as `out/<stem>_<number>.<format>`, numbers from 0.

    Args:
        sample_each: `(files, progress=) -> (index, samples or exception) ...`, in any order.
        files: inputs. Of several with one stem the first that succeeds gives the result.
        out: an existing directory.
        formats: of `motion.FORMATS`.

    Returns:
        One outcome for each file, in the order of the files.
    """
    outcomes: dict[int, Outcome] = {}
    rounds = _rounds_of_distinct_stems(files)
    seconds_made = 0.0
    with tqdm(
        total=len(files), desc="animating", unit="file", dynamic_ncols=True, leave=len(files) > 1
    ) as bar:

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
            for position, samples in sample_each([files[number] for number in free], progress=progress):
                number = free[position]
                outcomes[number] = outcome = _write(files[number], samples, out, formats)
                if not outcome.problem:
                    writers[files[number].stem] = files[number]
                bar.update()
    return [outcomes[number] for number in range(len(files))]


def _rounds_of_distinct_stems(files: Sequence[Path]) -> list[list[int]]:
    """Numbers of the files in rounds: the n-th file of a stem is in round n, when the ones before it are done."""
    rounds: list[list[int]] = []
    seen = Counter()
    for number, file in enumerate(files):
        if seen[file.stem] == len(rounds):
            rounds.append([])
        rounds[seen[file.stem]].append(number)
        seen[file.stem] += 1
    return rounds


def _write(file: Path, samples: Sequence[Motion] | Exception, out: Path, formats: Sequence[str]) -> Outcome:
    """Saves motions in all formats; whatever goes wrong becomes the outcome's problem."""
    try:
        if isinstance(samples, Exception):
            raise samples
        # One rule for all files of a run: distinct stems give distinct names.
        names = [file.stem] if len(samples) == 1 else [f"{file.stem}_{n}" for n in range(len(samples))]
        for name, motion in zip(names, samples, strict=True):
            for kind in formats:
                motion.save(out / f"{name}.{kind}")
    except UserError as error:
        return Outcome(file, 0.0, str(error).removeprefix(f"{file}: "))
    except Exception as error:  # one strange file must not cost the rest of the folder
        return Outcome(file, 0.0, f"{type(error).__name__}: {error}".splitlines()[0])
    return Outcome(file, len(samples[0]) / samples[0].fps, "")


def outcome_table(outcomes: Sequence[Outcome]) -> str:
    """A line for every file, failures last, and a count."""
    good = [outcome for outcome in outcomes if not outcome.problem]
    bad = [outcome for outcome in outcomes if outcome.problem]
    lines = [f"ok      {outcome.seconds:8.2f} s  {outcome.audio}" for outcome in good]
    lines += [f"failed              {outcome.audio}: {outcome.problem}" for outcome in bad]
    return "\n".join([*lines, f"{len(good)} animated, {len(bad)} failed"])
