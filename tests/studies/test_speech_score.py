"""Speech score of recordings by the embedded corpus, whose own rule takes the place of a model."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from data_pipeline.synthetic_talk import clip as corpus
from data_pipeline.synthetic_talk.visemes import CLASS_SOUNDS
from deeptalk_jax.errors import UserError
from deeptalk_jax.head.load import load_head
from deeptalk_jax.studies.speech_score.chart import draw_scores
from deeptalk_jax.studies.speech_score.measure import means, read_alignment, score_recordings, sound_of
from deeptalk_jax.types import AUDIO_RATE_HZ

# One phone of ARPAbet for each class of visemes.
_PHONES = {
    "silence": "SIL",
    "bilabial": "P",
    "labiodental": "F",
    "dental": "TH",
    "alveolar": "T",
    "sibilant": "S",
    "postalveolar": "SH",
    "velar": "K",
    "rounded": "UW",
    "spread": "IY",
    "mid": "ER",
    "open": "AA",
}
_PHONE_OF = {sound: _PHONES[name] for name, sounds in CLASS_SOUNDS.items() for sound in sounds}
SENTENCES = (
    "Bob and Pam built a paper boat and pushed it into the pond.",
    "My brother put the purple bag behind the piano.",
)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Returns a folder of recordings with aligned.json, and the corpus's own motion of each file."""
    folder, entries, motions, segments = tmp_path_factory.mktemp("recordings"), [], {}, []
    classes = corpus.visemes.frame_classes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus.visemes, "frame_classes", lambda *a: segments.append(a[0]) or classes(*a))
        for number, text in enumerate(SENTENCES):
            made = corpus.make_clip(corpus.ClipPlan(0, "test", number, 28, 0, 0, "say"), text)
            path, heard = folder / f"clip_{number}.wav", segments.pop()
            soundfile.write(path, made.audio, AUDIO_RATE_HZ)
            motions[path] = made.motion
            phones = [
                (_PHONE_OF[sound], float(start), float(end))
                for sound, start, end in zip(heard.sounds, heard.starts_s, heard.ends_s, strict=True)
            ]
            entries.append({"name": path.stem, "phones": phones, "seconds": phones[-1][2], "text": text})
    (folder / "aligned.json").write_text(json.dumps(entries))
    return folder, motions


def stand_in(change, motions):
    def animate(sounds, *, emotion, blinks):
        assert blinks is False  # the learned motion is measured
        assert emotion is None
        return [SimpleNamespace(frames=lambda path=path: change(motions[path])) for path in sounds]

    return SimpleNamespace(head=load_head("procedural"), animate=animate)


def test_the_rule_of_the_corpus_scores_high_and_a_late_face_is_late(spoken):
    folder, motions = spoken
    recordings = read_alignment(folder / "aligned.json")
    found = score_recordings(stand_in(lambda motion: motion, motions), folder, recordings, None)
    assert found["clips"] == 2 and list(found["recordings"]) == ["clip_0", "clip_1"]
    assert found["closure_rate"] == 1.0
    assert found["closure_auc"] > 0.97 and found["rounding_auc"] > 0.95
    assert found["jaw_target_correlation"] > 0.75 and abs(found["lag_frames"]) <= 0.5
    assert max(found["gaps"]["closures"]) < 0.25 and np.median(found["gaps"]["vowels"]) > 0.8
    assert draw_scores(found).startswith(b"\x89PNG")

    late = score_recordings(
        stand_in(lambda motion: np.roll(motion, 2, axis=0), motions), folder, recordings, None
    )
    assert late["lag_frames"] == found["lag_frames"] + 2
    assert late["closure_auc"] < found["closure_auc"]


def test_a_still_face_follows_nothing(spoken):
    folder, motions = spoken
    recordings = read_alignment(folder / "aligned.json")
    still = score_recordings(stand_in(np.zeros_like, motions), folder, recordings, None)
    assert {key: still[key] for key in still if key != "recordings"} == {
        "clips": 2,
        "jaw_target_correlation": 0.0,
        "gaps": {"closures": [], "vowels": []},
    }


def test_means_are_over_the_recordings_that_have_a_score():
    assert means({"a": {"x": 1.0, "y": 2.0}, "b": {"x": 3.0}}) == {"x": 2.0, "y": 2.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "an empty list; expected at least one recording"),
        ("{", "JSONDecodeError.* in place of a list of recordings"),
        ('[{"name": "a", "phones": []}]', r"KeyError\('seconds'\) in place of"),
        ('[{"name": "a", "phones": [["AA", 0]], "seconds": 1}]', "ValueError.* in place of"),
        ("3", "TypeError.* in place of"),
    ],
)
def test_a_bad_alignment_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "aligned.json"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"aligned\.json: {message}"):
        read_alignment(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"aligned\.json: cannot be read \(No such file"):
        read_alignment(tmp_path / "aligned.json")
    with pytest.raises(UserError, match=r"no sound for the recording 'a'; expected a\.wav"):
        sound_of(tmp_path, "a")
