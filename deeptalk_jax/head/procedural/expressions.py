"""The 50 named actions of `head/actions.py` as displacement fields; left-sided ones are mirrored for the right.

Amounts are millimetres at coefficient 1, after the range of motion that the Facial Action Coding System
describes; the shapes are sculpted by hand.
"""

from collections.abc import Callable

import numpy as np

from deeptalk_jax.head.actions import EXPRESSION_ACTIONS
from deeptalk_jax.head.procedural import lids, mouth_actions, upper_face
from deeptalk_jax.head.procedural.anatomy import Anatomy

Action = Callable[[Anatomy], np.ndarray]

# Actions with a side give the left one; the others must be symmetric, or are made so, unless they shift.
_ACTIONS: dict[str, Action] = {**mouth_actions.ACTIONS, **upper_face.ACTIONS, **lids.ACTIONS}
_SIDEWAYS = ("mouth_shift_left", "jaw_shift_left")


def expression_displacements(anatomy: Anatomy) -> np.ndarray:
    """All directions.

    Args:
        anatomy: the neutral head.

    Returns:
        `[v, 3, 50]` mm per unit, in the order of `EXPRESSION_ACTIONS`.
    """
    fields = []
    for name in EXPRESSION_ACTIONS:
        side = name.rsplit("_", 1)[-1]
        if name in _SIDEWAYS:
            # To the left, mirrored, is to the right: the negative of itself.
            field = anatomy.with_followers(_ACTIONS[name](anatomy))
            field = 0.5 * (field - anatomy.mirrored(field))
        elif side in ("left", "right"):
            field = anatomy.with_followers(_ACTIONS[name.removesuffix(f"_{side}")](anatomy))
            field = field if side == "left" else anatomy.mirrored(field)
        else:
            field = anatomy.with_followers(_ACTIONS[name](anatomy))
            field = 0.5 * (field + anatomy.mirrored(field))
        fields.append(field)
    return np.stack(fields, axis=-1)
