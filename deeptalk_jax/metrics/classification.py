"""Agreement of predicted with true classes."""

import numpy as np


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """`[classes, classes]` counts: true class by row, predicted class by column.

    Args:
        labels: `[n]` true classes.
        predicted: `[n]`.
        num_classes: number of classes.

    Raises:
        ValueError: shapes differ, or a class is out of range.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.shape != predicted.shape:
        raise ValueError(f"{labels.shape} labels and {predicted.shape} predictions")
    for values in (labels, predicted):
        outside = values[(values < 0) | (values >= num_classes)]
        if len(outside):
            raise ValueError(f"class {outside[0]} is not between 0 and {num_classes - 1}")
    counts = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """`[classes]` share of each true class that is predicted as it (recall); NaN for a class that never occurs."""
    total = confusion.sum(axis=1)
    return np.divide(np.diag(confusion), total, out=np.full(len(total), np.nan), where=total > 0)


def accuracy(confusion: np.ndarray) -> float:
    """Share of all that are predicted as what they are."""
    return float(np.trace(confusion) / confusion.sum())
