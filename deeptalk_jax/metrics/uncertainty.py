"""Meaning of predicted variances: their relation to the ambiguity of a clip and to errors."""

import numpy as np
from scipy import stats
from scipy.special import logsumexp, softmax


def total_variance(log_variance: np.ndarray) -> np.ndarray:
    """Returns `[n]` traces of the covariance: sums of `exp(log_variance)` over the channels of `[n, d]`.

    DEE's distance contains the same term (PCME++, Chun, ICLR 2024, equation 1).
    """
    return np.sum(np.exp(np.asarray(log_variance, np.float64)), axis=-1)


def label_entropy(log_probability: np.ndarray, gallery_labels: np.ndarray) -> np.ndarray:
    """Returns `[q]` entropies, in nats, of the label of the item that matches a query.

    The probability of a label is the sum of the match probabilities of its items, divided by the sum over all items.

    Args:
        log_probability: `[q, g]` logarithms of match probabilities, which may be below the smallest float.
        gallery_labels: `[g]` labels of the items.

    Raises:
        ValueError: `log_probability` does not have one column per item.
    """
    if log_probability.shape[1:] != gallery_labels.shape:
        raise ValueError(
            f"log_probability {log_probability.shape} and gallery_labels {gallery_labels.shape} differ in items"
        )
    values = np.asarray(log_probability, np.float64)
    mass = [logsumexp(values[:, gallery_labels == label], axis=1) for label in np.unique(gallery_labels)]
    return stats.entropy(softmax(np.stack(mass, axis=1), axis=1), axis=1)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Returns Spearman's rank correlation, with mean ranks for ties; NaN if either array is constant.

    Raises:
        ValueError: shapes differ.
    """
    first, second = (np.asarray(values, np.float64) for values in (first, second))
    if first.shape != second.shape:
        raise ValueError(f"shapes differ: {first.shape}, {second.shape}")
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(stats.spearmanr(first, second).statistic)


def grouped_rank_correlation(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> float:
    """Returns the mean of Spearman's rank correlations within groups, weighted by the sizes of the groups.

    It excludes the correlation that comes from differences between groups.

    Returns:
        The mean over groups in which both arrays vary; NaN if there is none.
    """
    labels, sizes = np.unique(groups, return_counts=True)
    values = np.array([rank_correlation(first[groups == label], second[groups == label]) for label in labels])
    defined = np.isfinite(values)
    return float(np.average(values[defined], weights=sizes[defined])) if defined.any() else float("nan")


def quantile_groups(values: np.ndarray, num_groups: int) -> np.ndarray:
    """Returns `[n]` numbers of quantile groups, 0 for the smallest values.

    Groups have the same size, except that the first ones may have one value more.

    Raises:
        ValueError: there are fewer values than groups.
    """
    if len(values) < num_groups:
        raise ValueError(f"{len(values)} values cannot be split into {num_groups} groups")
    groups = np.empty(len(values), int)
    for group, members in enumerate(np.array_split(np.argsort(values, kind="stable"), num_groups)):
        groups[members] = group
    return groups


def group_means(values: np.ndarray, groups: np.ndarray) -> dict[int, float]:
    """Returns the mean of the values of every group that occurs, by group number in ascending order."""
    return {int(group): float(np.mean(values[groups == group])) for group in np.unique(groups)}
