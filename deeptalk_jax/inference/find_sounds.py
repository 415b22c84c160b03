"""Finds the sounds of files and folders, and chooses the names of their results.

Folders are searched by content, because recordings come with many extensions and other files lie beside them. No file
is lost silently: each one that is left out is reported with the reason.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from deeptalk_jax.errors import UserError

# Files with these extensions are meant to be sound: if they cannot be read, that is a failure.
_SOUND_EXTENSIONS = frozenset(
    f".{name}"
    for names in (
        "aac ac3 aif aifc aiff amr ape au bwf caf flac m4a m4b mka mp2 mp3 oga ogg opus rf64 snd sph spx voc w64 wav",
        "wave wma wv 3gp avi m4v mkv mov mp4 ogv webm wmv",
    )
    for name in names.split()
)
_MAX_NAME_BYTES = 255  # of common file systems
_MAX_LINES_PER_KIND = 3


class FoundSound(NamedTuple):
    """A sound file and the place of its results.

    Attributes:
        path: the sound file.
        target: path of the results below the output directory, without number and extension.
    """

    path: Path
    target: Path


class LeftOut(NamedTuple):
    """A file of a folder that is not animated.

    Attributes:
        path: the file or sub-folder.
        reason: why it is left out.
    """

    path: Path
    reason: str


def find_sounds(
    paths: Sequence[str | os.PathLike], out: str | os.PathLike | None = None
) -> tuple[list[FoundSound], list[LeftOut]]:
    """Finds all sounds in files and folders.

    Folders are searched with their sub-folders, sorted by name. Hidden files and folders are ignored. The result of a
    file in a folder is at the same relative path below the output directory. It has the stem of the file, or the whole
    file name where several files have the same stem.

    Args:
        paths: files, which are kept whatever they contain, and folders.
        out: output directory, which is not searched.

    Returns:
        The sounds, and the files of the folders that are left out.

    Raises:
        UserError: no path is given, a folder cannot be read, or it holds no sound.
    """
    if not paths:
        raise UserError("no sound file is given; name sound files or directories with --audio=")
    places: dict[Path, Path] = {}  # output folder of each file; a file that is named twice is read once
    left_out = []
    for path in map(Path, paths):
        if not path.is_dir():
            places.setdefault(path, Path())
            continue
        num_before = len(left_out)
        inside = [file for file in _walk(path, out, left_out) if _is_wanted(file, left_out)]
        if not inside:
            raise UserError(
                f"{path}: the directory holds no sound file"
                + (f" ({left_out[num_before].path}: {left_out[num_before].reason})" if left_out else "")
            )
        for file in inside:
            places.setdefault(file, file.parent.relative_to(path))
    targets = _distinct_targets(list(places.items()))
    return [FoundSound(file, targets[file]) for file in places], left_out


def _walk(folder: Path, out: str | os.PathLike | None, left_out: list[LeftOut]) -> Iterator[Path]:
    """Yields the files of a folder in order; a folder that is reached twice, through links, is read once."""
    seen = set() if out is None or not os.path.isdir(out) else {_identity(Path(out))}

    def report(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise UserError(f"{folder}: the directory cannot be read ({error.strerror})") from error
        left_out.append(LeftOut(Path(error.filename), f"cannot be read ({error.strerror})"))

    for parent, folders, files in os.walk(folder, followlinks=True, onerror=report):
        identity = _identity(Path(parent))
        if identity in seen:
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(files) if not name.startswith("."))


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_wanted(file: Path, left_out: list[LeftOut]) -> bool:
    """Returns whether a file of a folder is to be animated; otherwise adds it to `left_out`."""
    if not file.is_file():
        reason = "neither a file nor a directory" if file.exists() else "a link to nothing"
    elif file.suffix.lower() in _SOUND_EXTENSIONS:
        return True
    else:
        reason = _why_not_sound(file)
    if reason:
        left_out.append(LeftOut(file, reason))
    return not reason


def _why_not_sound(file: Path) -> str:
    """Returns why a file cannot be read as sound; empty if it can."""
    from deeptalk_jax.inference.audio import (
        read_audio,
    )  # here, because most folders hold known extensions only

    try:
        read_audio(file)
    except UserError as error:
        return str(error).removeprefix(f"{file}: ")
    return ""


def _distinct_targets(places: Sequence[tuple[Path, Path]]) -> dict[Path, Path]:
    """Gives each file a target of its own: its stem if no other file has it, then longer names, then a number."""
    stems = Counter((folder, file.stem) for file, folder in places)
    names = Counter((folder, file.name) for file, folder in places)
    targets, taken = {}, set()
    # Unique stems come first, so that no longer name takes theirs.
    for file, folder in sorted(places, key=lambda place: stems[place[1], place[0].stem] > 1):
        candidates = [file.stem] if stems[folder, file.stem] == 1 else []
        candidates += [file.name] if names[folder, file.name] == 1 else []
        candidates.append(f"{file.absolute().parent.name}_{file.name}")
        number = 2
        while (target := folder / candidates[0]) in taken:
            if len(candidates) == 1:
                candidates.append(f"{file.name}_{number}")
                number += 1
            del candidates[0]
        taken.add(target)
        targets[file] = target
    return targets


def result_path(target: Path, ending: str) -> Path:
    """Returns `target` with `ending`; a name too long for file systems is cut and gets a hash, so it stays distinct."""
    encoded = os.fsencode(target.name)
    most = _MAX_NAME_BYTES - len(ending.encode())
    if len(encoded) <= most:
        return target.with_name(target.name + ending)
    digest = f"_{hashlib.sha256(encoded).hexdigest()[:8]}"
    return target.with_name(encoded[: most - len(digest)].decode(errors="ignore") + digest + ending)


def left_out_lines(left_out: Sequence[LeftOut]) -> list[str]:
    """Returns `path: reason` for each file; many files of one kind in one folder share a line with their number."""
    kinds = defaultdict(list)
    for path, reason in left_out:
        kinds[path.parent, path.suffix, reason].append(path)
    lines = []
    for (folder, suffix, reason), paths in kinds.items():
        if len(paths) > _MAX_LINES_PER_KIND:
            lines.append(f"{folder}: {len(paths)} files *{suffix}: {reason}")
        else:
            lines += [f"{path}: {reason}" for path in paths]
    return lines
