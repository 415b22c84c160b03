"""Ranks, recall and chance level by hand."""

import numpy as np
import pytest

from deeptalk_jax.metrics.retrieval import (
    label_chance,
    label_ranks,
    label_recall,
    nearest_labels,
    pair_ranks,
    recall_at,
)

# Items by distance: 0 1 2 for query 0, 0 2 1 for query 1, 1 2 0 for query 2.
DISTANCE = np.array([[0.1, 0.5, 0.9], [0.05, 0.3, 0.1], [0.9, 0.2, 0.4]])
LABELS = np.array([0, 1, 1])


def test_ranks_and_recall_by_hand():
    np.testing.assert_array_equal(label_ranks(DISTANCE, LABELS, LABELS), [1, 2, 1])
    np.testing.assert_array_equal(pair_ranks(DISTANCE), [1, 3, 2])
    np.testing.assert_array_equal(nearest_labels(DISTANCE, LABELS), [0, 0, 1])
    assert label_recall(DISTANCE, LABELS, LABELS) == pytest.approx(2 / 3)
    assert label_recall(DISTANCE, LABELS, LABELS, k=2) == 1.0
    assert label_recall(DISTANCE.T, LABELS, LABELS) == pytest.approx(2 / 3)
    assert recall_at(pair_ranks(DISTANCE), 1, 3) == pytest.approx(1 / 3)
    assert recall_at(pair_ranks(DISTANCE), 2, 3) == pytest.approx(2 / 3)


def test_rank_is_infinite_if_no_item_has_the_label():
    # There are more queries than items here.
    ranks = label_ranks(DISTANCE[:, :2], np.array([0, 1, 7]), LABELS[:2])
    np.testing.assert_array_equal(ranks, [1, 2, np.inf])
    assert recall_at(ranks, 2, 2) == pytest.approx(2 / 3)


def test_chance_by_hand():
    assert label_chance(LABELS, LABELS) == pytest.approx(5 / 9)
    # The query with label 0 misses with probability 2/3 * 1/2. The others cannot miss: two of three items are hits.
    assert label_chance(LABELS, LABELS, k=2) == pytest.approx(1 - 1 / 9)


def test_chance_equals_the_mean_recall_of_random_distances():
    rng = np.random.default_rng(0)
    queries, items = rng.integers(3, size=7), rng.integers(3, size=11)
    drawn = [label_recall(rng.random((7, 11)), queries, items, k=4) for _ in range(2000)]
    assert np.mean(drawn) == pytest.approx(label_chance(queries, items, k=4), abs=0.01)


def test_wrong_shapes_and_large_k_are_rejected():
    with pytest.raises(ValueError, match=r"distance has shape \(2, 2\), expected 3 queries by 2 items"):
        label_recall(np.zeros((2, 2)), np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="k=3 is not between 1 and the gallery size 2"):
        label_recall(np.zeros((2, 2)), np.zeros(2), np.zeros(2), k=3)
