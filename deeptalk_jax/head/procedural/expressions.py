"""The 50 named actions of `head/actions.py` as displacement fields.

Right-sided actions are the mirror images of left-sided ones. Displacements are in millimetres at a coefficient of 1.
Their sizes follow the ranges of motion in the Facial Action Coding System (Ekman, Friesen and Hager, 2002); their
shapes are designed by hand.
"""

from collections.abc import Callable

import numpy as np

from deeptalk_jax.head.actions import EXPRESSION_ACTIONS
from deeptalk_jax.head.procedural import lids, mouth_actions, upper_face
from deeptalk_jax.head.procedural.anatomy import Anatomy

Action = Callable[[Anatomy], np.ndarray]

# Functions of sided actions return the left side. All other fields are made symmetric, except sideways shifts.
_ACTIONS: dict[str, Action] = {**mouth_actions.ACTIONS, **upper_face.ACTIONS, **lids.ACTIONS}
_SIDEWAYS = ("mouth_shift_left", "jaw_shift_left")


def expression_displacements(anatomy: Anatomy) -> np.ndarray:
    """Computes the displacement fields of all actions.

    Args:
        anatomy: the neutral head.

    Returns:
        `[v, 3, 50]` mm per unit of a coefficient, in the order of `EXPRESSION_ACTIONS`.
    """
    fields = []
    for name in EXPRESSION_ACTIONS:
        side = name.rsplit("_", 1)[-1]
        if name in _SIDEWAYS:
            # The mirror image of a shift to the left is a shift to the right, so the field must be antisymmetric.
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
