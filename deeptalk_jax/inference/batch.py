"""Many files, one after the other: a bad one is reported and the rest goes on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.motion import Motion


class Outcome(NamedTuple):
    """What became of one file.

    Attributes:
        audio: the input.
        seconds: length of its motion; 0 on failure.
        problem: what went wrong, without the name of the input; empty on success.
    """

    audio: Path
    seconds: float
    problem: str


def animate_files(
    animate: Callable[[Path], Motion], files: Sequence[Path], out: Path, formats: Sequence[str]
) -> list[Outcome]:
    """Writes `out/<stem>.<format>` for every file.

    Args:
        animate: file to motion; may raise `UserError`.
        files: inputs, in order.
        out: an existing directory.
        formats: of `motion.FORMATS`.

    Returns:
        One outcome for each file.
    """
    outcomes, writers = [], {}
    with tqdm(files, desc="animating", unit="file", dynamic_ncols=True, disable=len(files) < 2) as bar:
        for file in bar:
            bar.set_postfix_str(file.name)
            try:
                if file.stem in writers:
                    raise UserError(f"would overwrite the result of {writers[file.stem]} (same name)")
                motion = animate(file)
                for kind in formats:
                    motion.save(out / f"{file.stem}.{kind}")
            except UserError as error:
                outcomes.append(Outcome(file, 0.0, str(error).removeprefix(f"{file}: ")))
                continue
            except Exception as error:  # one strange file must not cost the rest of the folder
                outcomes.append(Outcome(file, 0.0, f"{type(error).__name__}: {error}".splitlines()[0]))
                continue
            writers[file.stem] = file
            outcomes.append(Outcome(file, len(motion) / motion.fps, ""))
    return outcomes


def outcome_table(outcomes: Sequence[Outcome]) -> str:
    """A line for every file, failures last, and a count."""
    good = [outcome for outcome in outcomes if not outcome.problem]
    bad = [outcome for outcome in outcomes if outcome.problem]
    lines = [f"ok      {outcome.seconds:8.2f} s  {outcome.audio}" for outcome in good]
    lines += [f"failed              {outcome.audio}: {outcome.problem}" for outcome in bad]
    return "\n".join([*lines, f"{len(good)} animated, {len(bad)} failed"])
