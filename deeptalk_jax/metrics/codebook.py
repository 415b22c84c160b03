"""Codebook use over a whole data set: perplexity and share of codes in use."""

import numpy as np


class CodebookUse:
    """Counts how often each code is chosen.

    Args:
        codebook_size: number of codes.
    """

    def __init__(self, codebook_size: int):
        self._counts = np.zeros(codebook_size)

    def add(self, indices: np.ndarray) -> None:
        """Counts indices of any shape."""
        self._counts += np.bincount(np.asarray(indices).ravel(), minlength=len(self._counts))

    @property
    def perplexity(self) -> float:
        """Exp of the entropy of code use, the effective number of codes; Sonnet's VQ-VAE reports the same."""
        share = self._counts[self._counts > 0] / self._counts.sum()
        return float(np.exp(-np.sum(share * np.log(share))))

    @property
    def used_fraction(self) -> float:
        """Share of the codes that were chosen at least once."""
        return float(np.mean(self._counts > 0))
