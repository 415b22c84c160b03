"""Cross-modal retrieval: at which rank comes the first item of the other side with the same label?

Ties go to the item of the lower index.
"""

import numpy as np
from scipy.special import comb


def label_ranks(distance: np.ndarray, query_labels: np.ndarray, gallery_labels: np.ndarray) -> np.ndarray:
    """`[q]` rank, from 1, of the nearest item with the query's label; infinite where no item has it.

    Args:
        distance: `[q, g]` smaller is nearer.
        query_labels: `[q]`.
        gallery_labels: `[g]`.

    Raises:
        ValueError: shapes do not fit.
    """
    if distance.shape != (len(query_labels), len(gallery_labels)):
        raise ValueError(
            f"distance has shape {distance.shape} for {len(query_labels)} queries, {len(gallery_labels)} items"
        )
    right = gallery_labels[_by_distance(distance)] == query_labels[:, None]
    return np.where(right.any(axis=1), 1.0 + right.argmax(axis=1), np.inf)


def pair_ranks(distance: np.ndarray) -> np.ndarray:
    """`[q]` rank, from 1, of each query's own counterpart: the item of the same index."""
    indices = np.arange(len(distance))
    return label_ranks(distance, indices, indices)


def recall_at(ranks: np.ndarray, k: int, num_items: int) -> float:
    """Share of the queries with a rank of at most k (R@k).

    Raises:
        ValueError: k exceeds the gallery of so many items.
    """
    if not 1 <= k <= num_items:
        raise ValueError(f"k={k} is not between 1 and the gallery size {num_items}")
    return float(np.mean(ranks <= k))


def label_recall(
    distance: np.ndarray, query_labels: np.ndarray, gallery_labels: np.ndarray, *, k: int = 1
) -> float:
    """Share of queries with an item of their own label among the k nearest; see `label_ranks`, `recall_at`."""
    return recall_at(label_ranks(distance, query_labels, gallery_labels), k, len(gallery_labels))


def pair_recall(distance: np.ndarray, *, k: int = 1) -> float:
    """Share of queries whose own counterpart (same index) is among the k nearest."""
    return recall_at(pair_ranks(distance), k, len(distance))


def nearest_labels(distance: np.ndarray, gallery_labels: np.ndarray) -> np.ndarray:
    """`[q]` label of the nearest item of every query."""
    return gallery_labels[_by_distance(distance)[:, 0]]


def label_chance(query_labels: np.ndarray, gallery_labels: np.ndarray, *, k: int = 1) -> float:
    """R@k of a gallery in random order, averaged over the queries.

    Of g items m have the query's label; none is among the first k with probability C(g - m, k) / C(g, k).
    """
    num_others = np.sum(query_labels[:, None] != gallery_labels[None, :], axis=1)
    return float(np.mean(1.0 - comb(num_others, k) / comb(len(gallery_labels), k)))


def _by_distance(distance: np.ndarray) -> np.ndarray:
    """`[q, g]` items of every query, the nearest first."""
    return np.argsort(distance, axis=1, kind="stable")
