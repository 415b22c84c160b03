"""Codebook use by hand."""

import numpy as np
import pytest

from deeptalk_jax.metrics.codebook import CodebookUse


def test_codebook_use_by_hand():
    use = CodebookUse(4)
    use.add(np.array([[0, 0, 1, 1]]))
    assert use.perplexity == pytest.approx(2.0)
    assert use.used_fraction == 0.5
