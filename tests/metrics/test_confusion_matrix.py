"""Confusion matrix, accuracy and recall by hand."""

import numpy as np
import pytest

from deeptalk_jax.metrics.classification import accuracy, class_accuracy, confusion_matrix


def test_confusion_matrix_by_hand():
    confusion = confusion_matrix(np.array([0, 0, 0, 1, 1]), np.array([0, 1, 1, 1, 2]), 3)
    np.testing.assert_array_equal(confusion, [[1, 2, 0], [0, 1, 1], [0, 0, 0]])
    np.testing.assert_allclose(class_accuracy(confusion), [1 / 3, 1 / 2, np.nan])
    assert accuracy(confusion) == pytest.approx(2 / 5)


@pytest.mark.parametrize(
    ("labels", "predicted", "message"),
    [
        ([0, 1], [0], r"labels \(2,\) and predicted \(1,\) differ in shape"),
        ([0, 3], [0, 0], "class 3 is not between 0 and 2"),
        ([0, 0], [0, -1], "class -1 is not between 0 and 2"),
    ],
)
def test_wrong_labels_are_rejected(labels, predicted, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.array(labels), np.array(predicted), 3)
