"""Classification metrics: confusion matrix, accuracy and recall per class."""

import numpy as np


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns `[classes, classes]` counts with the true class as row and the predicted class as column.

    Args:
        labels: `[n]` true classes.
        predicted: `[n]` predicted classes.
        num_classes: number of classes.

    Raises:
        ValueError: shapes differ, or a class is out of range.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    if labels.shape != predicted.shape:
        raise ValueError(f"labels {labels.shape} and predicted {predicted.shape} differ in shape")
    for values in (labels, predicted):
        outside = values[(values < 0) | (values >= num_classes)]
        if len(outside):
            raise ValueError(f"class {outside[0]} is not between 0 and {num_classes - 1}")
    counts = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Returns `[classes]` recall: the share of each true class that is predicted correctly; NaN for absent classes."""
    total = confusion.sum(axis=1)
    return np.divide(np.diag(confusion), total, out=np.full(len(total), np.nan), where=total > 0)


def accuracy(confusion: np.ndarray) -> float:
    """Returns the share of all examples that are predicted correctly."""
    return float(np.trace(confusion) / confusion.sum())
