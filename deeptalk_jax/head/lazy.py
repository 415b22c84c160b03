"""`LazyHead`: a head that is loaded when it is first used.

Building the embedded head takes longer than animating a short clip, and its arrays take megabytes. An object that
refers to its head through `LazyHead` is therefore quick to make, to copy and to pickle.
"""

from deeptalk_jax.head.load import load_head
from deeptalk_jax.head.model import HeadModel


class LazyHead:
    """Loads a head once, on the first call.

    A pickle holds only the reference, so the head is loaded again where the pickle is read. Copies share the head.

    Args:
        reference: "procedural" or the path of a file, as `load_head` takes it.

    Attributes:
        reference: see the argument.
    """

    def __init__(self, reference: str):
        self.reference = reference
        self._head: HeadModel | None = None

    def __call__(self) -> HeadModel:
        """Returns the head.

        Raises:
            UserError: see `load_head`.
        """
        if self._head is None:
            self._head = load_head(self.reference)
        return self._head

    def __copy__(self) -> "LazyHead":
        return self

    def __deepcopy__(self, memo: dict) -> "LazyHead":
        return self

    def __reduce__(self) -> tuple:
        return LazyHead, (self.reference,)
