"""Whether a predicted variance means something: does it follow what makes a clip ambiguous, does it foretell errors?"""

import numpy as np
from scipy import stats
from scipy.special import logsumexp, softmax


def total_variance(log_variance: np.ndarray) -> np.ndarray:
    """`[n]` sum over channels of `exp(log_variance)` `[n, d]`: the trace of the covariance, as in DEE's distance."""
    return np.sum(np.exp(np.asarray(log_variance, np.float64)), axis=-1)


def label_entropy(log_probability: np.ndarray, gallery_labels: np.ndarray) -> np.ndarray:
    """`[q]` entropy, in nats, of the label of a query's match.

    Args:
        log_probability: `[q, g]` of a match, as logarithms because those of a wide space are below the smallest float;
            a label's probability is the sum over its items, divided by the sum over all.
        gallery_labels: `[g]`.

    Raises:
        ValueError: shapes do not fit.
    """
    if log_probability.shape[1:] != gallery_labels.shape:
        raise ValueError(f"log_probability {log_probability.shape} for {gallery_labels.shape} labels")
    values = np.asarray(log_probability, np.float64)
    mass = [logsumexp(values[:, gallery_labels == label], axis=1) for label in np.unique(gallery_labels)]
    return stats.entropy(softmax(np.stack(mass, axis=1), axis=1), axis=1)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation, ties with their mean rank; NaN where either does not vary.

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
    """Mean of the rank correlations within groups, weighted by their sizes: what does not come from the groups.

    Returns:
        NaN where no group has a correlation.
    """
    labels, sizes = np.unique(groups, return_counts=True)
    values = np.array([rank_correlation(first[groups == label], second[groups == label]) for label in labels])
    defined = np.isfinite(values)
    return float(np.average(values[defined], weights=sizes[defined])) if defined.any() else float("nan")


def quantile_groups(values: np.ndarray, num_groups: int) -> np.ndarray:
    """`[n]` group of each value, 0 for the smallest: groups of the same size, or of one more in the first ones.

    Raises:
        ValueError: fewer values than groups.
    """
    if len(values) < num_groups:
        raise ValueError(f"{len(values)} values do not fill {num_groups} groups")
    groups = np.empty(len(values), int)
    for group, members in enumerate(np.array_split(np.argsort(values, kind="stable"), num_groups)):
        groups[members] = group
    return groups


def group_means(values: np.ndarray, groups: np.ndarray) -> dict[int, float]:
    """Mean of the values of every group that occurs, by group in rising order."""
    return {int(group): float(np.mean(values[groups == group])) for group in np.unique(groups)}
