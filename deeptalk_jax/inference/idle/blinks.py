"""Blinks: a rule on the eyelids of the embedded head, applied after decoding. Nothing here is learned.

Speech says nothing about when a speaker blinks, so the most likely motion of a sound has no blinks. Rate: 17 per minute
(Bentivoglio et al., Movement Disorders, 1997: 17 at rest, 26 in conversation). Length: Caffier et al., European Journal
of Applied Physiology, 2003; VanderWerf et al., Journal of Neurophysiology, 2003.
"""

import numpy as np
from jaxtyping import Bool, Float

from deeptalk_jax.errors import UserError
from deeptalk_jax.head.actions import ACTION_INDEX
from deeptalk_jax.types import EXPRESSION_DIM, MOTION_RATE_HZ

_MEAN_INTERVAL_S = 60.0 / 17.0
_REFRACTORY_S = 1.0  # shortest time from one onset to the next
_INTERVAL_LOG_STD = 0.7  # of the lognormal part of an interval, which makes long intervals more frequent
_CLOSING_FRAMES = (2, 3)  # 80 to 120 ms from open to closed
_OPENING_FRAMES = (4, 5, 6)  # 160 to 240 ms from closed to open
_STREAM = 0xB11C  # separates these random numbers from others of the same seed
_CLOSED_SHARE = 0.5  # lids whose gap is below this share of the gap at rest count as closed
_FADED = ("upper_lid_raise", "lid_tighten")
# Height between the lids of the embedded head at rest, and its change per unit of an action of the same side, mm. They
# are written down because building the head takes longer than animating a short clip; a test holds them to the head.
LID_GAP_MM = 11.0
LID_SLOPES_MM = {
    "eye_close": -11.0,
    "lid_tighten": -4.0,
    "upper_lid_raise": 3.4,
    "cheek_raise": -1.766,
    "outer_brow_raise": 0.557,
    "brow_lower": -0.503,
    "inner_brow_raise": 0.295,
    "lip_corner_pull": -0.066,
    "nose_wrinkle": -0.022,
}


def _drawn_blinks(num_frames: int, seed: int) -> list[tuple[int, np.ndarray]]:
    """Draws first frame and closure of every blink that starts before `num_frames`, in order."""
    rng = np.random.default_rng((_STREAM, seed))
    log_mean = np.log(_MEAN_INTERVAL_S - _REFRACTORY_S) - _INTERVAL_LOG_STD**2 / 2
    blinks = []
    time_s = rng.uniform(0.0, _MEAN_INTERVAL_S)
    while (start := int(time_s * MOTION_RATE_HZ)) < num_frames:
        closing = np.arange(1, (count := rng.choice(_CLOSING_FRAMES)) + 1) / count
        opening = np.arange((count := rng.choice(_OPENING_FRAMES)) - 1, 0, -1) / count
        linear = np.concatenate([closing, opening])
        blinks.append((start, linear * linear * (3 - 2 * linear)))
        time_s += _REFRACTORY_S + rng.lognormal(log_mean, _INTERVAL_LOG_STD)
    return blinks


def _closure(num_frames: int, seed: int, closed: Bool[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
    """Draws the closure, and leaves out blinks with a `closed` frame in them or within the refractory time."""
    margin = round(_REFRACTORY_S * MOTION_RATE_HZ)
    closure = np.zeros(num_frames)
    for start, shape in _drawn_blinks(num_frames, seed):
        stop = start + len(shape)
        if not closed[max(start - margin, 0) : stop + margin].any():
            closure[start:stop] = shape[: num_frames - start]
    return closure


def blink_closure(num_frames: int, seed: int, first_frame: int = 0) -> Float[np.ndarray, " t"]:
    """Draws the closure of both eyes: blinks of 5 to 8 frames, 17 per minute on average.

    Args:
        num_frames: number of frames t at 25 per second.
        seed: random seed, 0 or above. A longer closure of a seed starts with the shorter one.
        first_frame: frame of the seed's closure at which the result starts.

    Returns:
        `[t]` from 0 (as decoded) to 1 (closed).
    """
    end = first_frame + num_frames
    return _closure(end, seed, np.zeros(end, bool))[first_frame:]


def add_blinks(motion: Float[np.ndarray, "t 53"], seed: int) -> Float[np.ndarray, "t 53"]:
    """Adds blinks to a decoded motion of the embedded head.

    The gap between the lids is linear in the coefficients. A blink with closure c fades the lid actions of an emotion
    by 1 - c and sets `eye_close` so that the gap becomes 1 - c times the decoded one: the lids meet and do not cross.
    No blink comes within a second of frames whose lids are decoded as half closed, or further.

    Args:
        motion: `[t, 53]` decoded motion.
        seed: random seed of the blinks, 0 or above.

    Returns:
        `[t, 53]` copy, changed only in the lid actions and only where a blink is.
    """
    slopes = {side: _lid_slopes(side) for side in ("left", "right")}
    gaps = {side: LID_GAP_MM + motion[:, :EXPRESSION_DIM] @ slope for side, slope in slopes.items()}
    closed = np.any([gap < _CLOSED_SHARE * LID_GAP_MM for gap in gaps.values()], axis=0)
    closure = _closure(len(motion), seed, closed)
    blinking = np.flatnonzero(closure)
    result = motion.copy()
    kept = (1 - closure[blinking]).astype(motion.dtype)
    for side, slope in slopes.items():
        for name in _FADED:
            faded = ACTION_INDEX[f"{name}_{side}"]
            result[blinking, faded] = motion[blinking, faded] * kept
        eye_close = ACTION_INDEX[f"eye_close_{side}"]
        others = result[blinking, :EXPRESSION_DIM].copy()
        others[:, eye_close] = 0.0
        gap = kept * gaps[side][blinking]
        result[blinking, eye_close] = (gap - LID_GAP_MM - others @ slope) / slope[eye_close]
    return result


def _lid_slopes(side: str) -> Float[np.ndarray, " 50"]:
    """Returns the change of the lid gap of a side per unit of each coefficient, mm."""
    slopes = np.zeros(EXPRESSION_DIM, np.float32)
    for action, slope in LID_SLOPES_MM.items():
        slopes[ACTION_INDEX[f"{action}_{side}"]] = slope
    return slopes


def resolve_blinks(blinks: bool | None, has_lid_actions: bool) -> bool:
    """Returns whether motions blink: None blinks where the head has lid actions.

    Raises:
        UserError: blinks are asked for, and the head has no lid actions.
    """
    if blinks and not has_lid_actions:
        raise UserError(
            "blinks=True: the head of this model has no lid actions, which only the embedded head has; leave out blinks"
        )
    return has_lid_actions if blinks is None else blinks
