"""Text form of blends: items with weights, such as `happy:0.8,surprised@2:0.2` or `3:0.5,7:0.5`.

Emotions (`emotion_blend`) and speaker identities (`identity`) share it.
"""

import math
import re
from typing import NamedTuple

from deeptalk_jax.errors import UserError

_ITEM = re.compile(r"(?P<name>[^:]+)(?::(?P<weight>[^:]+))?")


class BlendReader(NamedTuple):
    """Reads blends of one kind of item.

    Attributes:
        kind: name of the kind, for errors.
        form: expected form of an item, for errors.
        known: sentence that lists the known items; it ends every error.
    """

    kind: str
    form: str
    known: str

    def error(self, text: str, problem: str) -> UserError:
        """Returns an error about a blend."""
        return UserError(f"{self.kind} {text!r}: {problem}; {self.known}")

    def malformed(self, text: str, item: str) -> UserError:
        """Returns an error about an item that does not have the expected form."""
        return self.error(text, f"{item!r} is not {self.form}")

    def item(self, item: str, text: str) -> tuple[str, float | None]:
        """Reads `NAME[:WEIGHT]`, an item of the blend `text`.

        Raises:
            UserError: the item has another form, or its weight is not a finite number, 0 or above.
        """
        match = _ITEM.fullmatch(item.strip())
        if not match:
            raise self.malformed(text, item)
        name, weight = match["name"].strip(), match["weight"]
        return name, None if weight is None else self.number(weight, "weight", text)

    def items(self, text: str) -> list[tuple[str, float]]:
        """Reads items `NAME[:WEIGHT]`, separated by commas; a weight that is not given is 1.

        Raises:
            UserError: an item cannot be read, see `item`; or no weight is above 0.
        """
        pairs = [self.item(item, text) for item in text.split(",")]
        blend = [(name, 1.0 if weight is None else weight) for name, weight in pairs]
        if not any(weight for _, weight in blend):
            raise self.error(text, "no weight is above 0")
        return blend

    def number(self, value: str, what: str, text: str, highest: float = math.inf) -> float:
        """Reads a finite number from 0 to `highest`; `what` names it in errors.

        Raises:
            UserError: the value is not such a number.
        """
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (0 <= number <= highest and math.isfinite(number)):
            expected = "0 or above" if highest == math.inf else f"from 0 to {highest}"
            raise self.error(text, f"{what} {value!r} is not a number {expected}")
        return number
