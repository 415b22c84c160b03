"""Tests of the composition of the corpus: speakers, labels and sentences."""

import collections

import pytest

from data_pipeline.synthetic_talk import speakers
from data_pipeline.synthetic_talk.clip import plan_split
from data_pipeline.synthetic_talk.sentences import SENTENCES


def test_splits_have_disjoint_speakers_and_as_many_low_as_high_voices():
    casts = [speakers.split_speakers(split) for split in speakers.SPLITS]
    assert [len(cast) for cast in casts] == [24, 4, 4]
    assert sorted(sum(casts, ())) == list(range(32))
    for cast in casts:
        assert 2 * sum(speaker % 2 for speaker in cast) == len(cast)
    with pytest.raises(ValueError, match="unknown split 'dev'; expected one of train, validation, test"):
        speakers.split_speakers("dev")


def test_identity_is_the_index_among_the_training_speakers():
    identities = [speakers.identity_of(speaker) for speaker in speakers.split_speakers("train")]
    assert identities == list(range(24))
    assert {speakers.identity_of(s) for s in speakers.split_speakers("test")} == {speakers.UNKNOWN_IDENTITY}


@pytest.mark.parametrize("split", speakers.SPLITS)
def test_labels_are_balanced_and_names_are_unique(split):
    cast = speakers.split_speakers(split)
    plans = plan_split(split, 2 * 24 * len(cast), seed=0)
    combinations = collections.Counter((plan.emotion, plan.intensity, plan.speaker) for plan in plans)
    assert set(combinations.values()) == {2} and len(combinations) == 24 * len(cast)
    assert len({plan.name for plan in plans}) == len(plans)
    assert plans[1].name == f"speaker{plans[1].speaker:02d}_happy_1_0001"


def test_labels_of_a_small_corpus_are_balanced():
    plans = plan_split("train", 24, seed=0)
    assert set(collections.Counter(plan.emotion for plan in plans).values()) == {3}
    assert set(collections.Counter(plan.intensity for plan in plans).values()) == {8}
    assert len({plan.speaker for plan in plans}) == 24


def test_plans_do_not_depend_on_the_number_of_clips():
    assert plan_split("train", 50, seed=3) == plan_split("train", 90, seed=3)[:50]


def test_sentences_are_unique_and_well_formed():
    assert len(SENTENCES) >= 400 and len(set(SENTENCES)) == len(SENTENCES)
    for sentence in SENTENCES:
        assert 3 <= len(sentence.split()) <= 14 and sentence[-1] in ".?" and sentence[0].isupper(), sentence
