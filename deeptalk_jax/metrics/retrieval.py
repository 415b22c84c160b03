"""Cross-modal retrieval: does the nearest item of the other side carry the same label?"""

import numpy as np


def label_recall(
    distance: np.ndarray, query_labels: np.ndarray, gallery_labels: np.ndarray, *, k: int = 1
) -> float:
    """Share of queries with an item of their own label among the k nearest (R@k).

    Args:
        distance: `[q, g]` smaller is nearer.
        query_labels: `[q]`.
        gallery_labels: `[g]`.
        k: how many of the nearest count.

    Raises:
        ValueError: k exceeds the gallery, or shapes do not fit.
    """
    _check(distance, query_labels, gallery_labels, k)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return float(np.mean((gallery_labels[nearest] == query_labels[:, None]).any(axis=1)))


def pair_recall(distance: np.ndarray, *, k: int = 1) -> float:
    """Share of queries whose own counterpart (same index) is among the k nearest."""
    indices = np.arange(len(distance))
    return label_recall(distance, indices, indices, k=k)


def label_chance(query_labels: np.ndarray, gallery_labels: np.ndarray) -> float:
    """R@1 of a gallery in random order: mean share of the gallery with the query's label."""
    return float(np.mean(query_labels[:, None] == gallery_labels[None, :]))


def _check(distance, query_labels, gallery_labels, k):
    if distance.shape != (len(query_labels), len(gallery_labels)):
        raise ValueError(
            f"distance has shape {distance.shape} for {len(query_labels)} queries, {len(gallery_labels)} items"
        )
    if not 1 <= k <= len(gallery_labels):
        raise ValueError(f"k={k} is not between 1 and the gallery size {len(gallery_labels)}")
