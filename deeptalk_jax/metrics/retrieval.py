"""Cross-modal retrieval: ranks and recall at k (R@k; Hodosh et al., JAIR 2013).

DEEPTalk counts a query as a hit if the nearest item has the same emotion label (docs/method.md, section 2). Among
equal distances, the item with the lower index comes first.
"""

import numpy as np
from scipy.special import comb


def label_ranks(distance: np.ndarray, query_labels: np.ndarray, gallery_labels: np.ndarray) -> np.ndarray:
    """Returns `[q]` ranks, from 1, of the nearest item with the label of the query; infinite if there is none.

    Args:
        distance: `[q, g]` distances between queries and items.
        query_labels: `[q]` labels of the queries.
        gallery_labels: `[g]` labels of the items.

    Raises:
        ValueError: the shape of `distance` is not `[q, g]`.
    """
    if distance.shape != (len(query_labels), len(gallery_labels)):
        raise ValueError(
            f"distance has shape {distance.shape}, expected {len(query_labels)} queries by "
            f"{len(gallery_labels)} items"
        )
    right = gallery_labels[_by_distance(distance)] == query_labels[:, None]
    return np.where(right.any(axis=1), 1.0 + right.argmax(axis=1), np.inf)


def pair_ranks(distance: np.ndarray) -> np.ndarray:
    """Returns `[q]` ranks, from 1, of the counterpart of each query, which is the item with the same index."""
    indices = np.arange(len(distance))
    return label_ranks(distance, indices, indices)


def recall_at(ranks: np.ndarray, k: int, num_items: int) -> float:
    """Returns R@k, the share of queries with a rank of at most k, from 0 to 1.

    Args:
        ranks: `[q]` ranks, from 1.
        k: largest rank that counts as a hit.
        num_items: number of items in the gallery.

    Raises:
        ValueError: k is not between 1 and `num_items`.
    """
    if not 1 <= k <= num_items:
        raise ValueError(f"k={k} is not between 1 and the gallery size {num_items}")
    return float(np.mean(ranks <= k))


def label_recall(
    distance: np.ndarray, query_labels: np.ndarray, gallery_labels: np.ndarray, *, k: int = 1
) -> float:
    """Returns the share of queries that have an item of their own label among the k nearest.

    Arguments and errors are those of `label_ranks` and `recall_at`.
    """
    return recall_at(label_ranks(distance, query_labels, gallery_labels), k, len(gallery_labels))


def nearest_labels(distance: np.ndarray, gallery_labels: np.ndarray) -> np.ndarray:
    """Returns `[q]` labels of the nearest items."""
    return gallery_labels[_by_distance(distance)[:, 0]]


def label_chance(query_labels: np.ndarray, gallery_labels: np.ndarray, *, k: int = 1) -> float:
    """Returns the expected R@k of a gallery in random order, averaged over the queries.

    If m of g items have the label of the query, none of them is among the first k with probability
    C(g - m, k) / C(g, k).
    """
    num_others = np.sum(query_labels[:, None] != gallery_labels[None, :], axis=1)
    return float(np.mean(1.0 - comb(num_others, k) / comb(len(gallery_labels), k)))


def _by_distance(distance: np.ndarray) -> np.ndarray:
    """Returns `[q, g]` indices of the items of every query, nearest first."""
    return np.argsort(distance, axis=1, kind="stable")
