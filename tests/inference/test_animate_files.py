"""Animating folders of sound files, with stand-ins for the model."""

from pathlib import Path

import pytest

from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.animate_files import Outcome, animate_files, outcome_table
from deeptalk_jax.inference.emotion_classes import EmotionClasses, EmotionSecond
from deeptalk_jax.inference.find_sounds import find_sounds
from deeptalk_jax.types import EMOTIONS


class StandIn:
    """A motion of fifty frames that is saved as a text file with its name."""

    fps = 25

    def __init__(self, name, broken=()):
        self.name, self.broken = name, broken

    def __len__(self):
        return 50

    def save(self, path):
        if path.suffix in self.broken:
            raise UserError(f"{path}: cannot be written (No space left on device)")
        path.write_text(self.name)


def one_by_one(animate):
    """Returns a stand-in for `DeepTalk.animate_each` that calls `animate` for every file."""

    def animate_each(files, *, progress):
        for index, file in reversed(list(enumerate(files))):  # batches end in any order
            try:
                samples = [animate(file)]
            except Exception as error:
                samples = error
            else:
                progress(2.0)
            yield index, samples

    return animate_each


def test_good_and_bad_files_each_get_a_line(tmp_path):
    def animate(path):
        if path.name == "bad.wav":
            raise UserError(f"{path}: the file is empty")
        if path.name == "strange.wav":
            raise MemoryError("too\nlong")
        return StandIn(str(path), {".mp4"} if path.stem == "full" else ())

    files = [
        Path(name) for name in ("x/bad.wav", "x/a.b.wav", "strange.wav", "full.wav", "y/a.b.flac", "c.wav")
    ]
    outcomes = animate_files(one_by_one(animate), find_sounds(files)[0], tmp_path, ["npz", "mp4"])
    assert outcomes == [
        Outcome(files[0], 0.0, "the file is empty"),
        Outcome(files[1], 2.0, "", "a.b.wav.npz"),
        Outcome(files[2], 0.0, "MemoryError: too"),
        Outcome(files[3], 0.0, f"{tmp_path}/full.mp4: cannot be written (No space left on device)"),
        Outcome(files[4], 2.0, "", "a.b.flac.npz"),
        Outcome(files[5], 2.0, ""),
    ]
    assert (tmp_path / "a.b.wav.npz").read_text() == (tmp_path / "a.b.wav.mp4").read_text() == "x/a.b.wav"
    assert (tmp_path / "a.b.flac.npz").read_text() == "y/a.b.flac"
    assert outcome_table(outcomes).splitlines() == [
        "ok          2.00 s  x/a.b.wav -> a.b.wav.npz",
        "ok          2.00 s  y/a.b.flac -> a.b.flac.npz",
        "ok          2.00 s  c.wav",
        "failed              x/bad.wav: the file is empty",
        "failed              strange.wav: MemoryError: too",
        f"failed              full.wav: {tmp_path}/full.mp4: cannot be written (No space left on device)",
        "3 animated, 3 failed",
    ]


def test_results_are_written_as_soon_as_they_are_done(tmp_path):
    def animate_each(files, *, progress):
        for index, file in enumerate(files):
            assert sorted(path.name for path in tmp_path.iterdir()) == [f"{n}.npz" for n in range(index)]
            yield index, [StandIn(str(file))]

    files = [Path(f"{number}.wav") for number in range(3)]
    assert all(
        not outcome.problem
        for outcome in animate_files(animate_each, find_sounds(files)[0], tmp_path, ["npz"])
    )


def test_an_interrupt_ends_the_run(tmp_path):
    def animate(path):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        animate_files(one_by_one(animate), find_sounds(["a.wav", "b.wav"])[0], tmp_path, ["npz"])


def test_several_motions_of_a_file_are_numbered(tmp_path):
    def animate_each(files, *, progress):
        for index, file in enumerate(files):
            yield (
                index,
                [StandIn(f"{file} {number}", {".mp4"} if file.stem == "full" else ()) for number in "ab"],
            )

    files = [Path(name) for name in ("a.wav", "a_0.wav", "full.wav")]
    outcomes = animate_files(animate_each, find_sounds(files)[0], tmp_path, ["npz", "mp4"])
    problems = ["", "", f"{tmp_path}/full_0.mp4: cannot be written (No space left on device)"]
    assert [outcome.problem for outcome in outcomes] == problems
    assert [outcome.seconds for outcome in outcomes] == [2.0, 2.0, 0.0]
    written = {path.name: path.read_text() for path in tmp_path.glob("a*.npz")}
    assert written == {
        "a_0.npz": "a.wav a", "a_1.npz": "a.wav b", "a_0_0.npz": "a_0.wav a", "a_0_1.npz": "a_0.wav b"
    }  # fmt: skip


def test_emotions_of_the_sound_are_written_once_beside_its_motions(tmp_path):
    one = dict.fromkeys(EMOTIONS, 0.0) | {"fear": 1.0}
    classified = []

    def classify(waveform):
        classified.append(waveform)
        return EmotionClasses(one, [EmotionSecond(0.0, 1.0, one)])

    def animate_each(files, *, progress):
        motions = [StandIn("first"), StandIn("second")]
        motions[0].waveform = "sound"
        yield 0, motions

    formats = ["npz", "emotions.json", "emotions.srt"]
    (outcome,) = animate_files(
        animate_each, find_sounds(["x/a.b.wav"])[0], tmp_path, formats, classify=classify
    )
    assert not outcome.problem and classified == ["sound"]
    names = ["a.b.emotions.json", "a.b.emotions.srt", "a.b_0.npz", "a.b_1.npz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert (tmp_path / "a.b.emotions.srt").read_text().splitlines()[2] == "fear 1.00"


def test_settings_are_read_once_and_their_error_comes_before_the_bar(tmp_path, monkeypatch):
    calls = []

    def animate_each(files, *, progress):
        calls.append(files)
        raise UserError("emotion.wav: no such file")

    monkeypatch.setattr("deeptalk_jax.inference.animate_files.progress_bar", None)
    with pytest.raises(UserError, match=r"^emotion.wav: no such file$"):
        animate_files(animate_each, find_sounds(["a.wav"])[0], tmp_path, ["npz"])
    assert len(calls) == 1
