"""Motion of a synthetic clip, 53 numbers per frame: speech articulation plus the rest of the face.

The lips have priority: expressions that would part closed lips, or press open ones, are attenuated.
"""

import numpy as np

from data_pipeline.synthetic_talk import acoustics, coarticulation, expressions, visemes
from data_pipeline.synthetic_talk.speakers import MotionStyle
from data_pipeline.synthetic_talk.visemes import ARTICULATOR_INDEX, Segments
from deeptalk_jax.head.actions import ACTION_INDEX
from deeptalk_jax.types import EXPRESSION_DIM, MOTION_DIM, MOTION_RATE_HZ

LIP_CLOSE_JAW_RAD = 0.1  # opening of the jaw over which lip_close = 1 still closes the lips
# Growth of the jaw's opening with vocal effort: about 20 % for 6 dB (Geumann, 2001; Schulman, 1989).
_JAW_PER_DB = 0.03
_MAX_JAW_RAD = 0.42
_SURPRISE_JAW = 0.35
_OPENING_ACTIONS = ("lips_part", "upper_lip_raise", "lower_lip_depress", "lower_lip_protrude")
_CLOSING_ACTIONS = ("lip_press", "lip_tighten", "chin_raise", "lip_corner_depress")
_MIN, _MAX = -0.5, 1.5


def articulate(
    segments: Segments, level_db: np.ndarray, *, effort_db: float, jaw_factor: float, style: MotionStyle
) -> np.ndarray:
    """Computes the motion of the articulators.

    Args:
        segments: Sounds of the clip in time.
        level_db: `[t]` level of each frame in dB relative to full scale.
        effort_db: Vocal effort of the clip in dB relative to calm speech.
        jaw_factor: Factor of the emotion on the opening of the jaw.
        style: Motion style of the speaker.

    Returns:
        `[t, p]` in the order of `visemes.ARTICULATORS`; the jaw is in radians.
    """
    times_s = (np.arange(len(level_db)) + 0.5) / MOTION_RATE_HZ
    weights = coarticulation.dominance(
        times_s,
        segments.starts_s,
        segments.ends_s,
        segments.peaks,
        visemes.ANTICIPATION_PER_S,
        visemes.CARRYOVER_PER_S,
    )
    shapes = coarticulation.blend(weights, segments.targets)
    jaw, closure = ARTICULATOR_INDEX["jaw"], ARTICULATOR_INDEX["closure"]
    relative_db = np.clip(_smooth(level_db) - np.percentile(level_db, 75), -12.0, 8.0)
    loudness = np.exp(_JAW_PER_DB * (relative_db + np.clip(effort_db, -10.0, 12.0)))
    gains = np.full((len(level_db), shapes.shape[1]), style.articulation)
    gains[:, jaw] = style.jaw * jaw_factor * loudness
    gains[:, closure] = 1.0  # all speakers close the lips completely
    shapes = shapes * gains
    shapes[:, jaw] = np.clip(shapes[:, jaw], 0.0, _MAX_JAW_RAD)
    return shapes


def lip_actions(shapes: np.ndarray) -> np.ndarray:
    """Converts articulators to action coefficients, `[t, p]` -> `[t, 50]`.

    The lips can close while the jaw is open: `lip_close` grows with the opening of the jaw, and actions that part the
    lips fade as the lips close.
    """
    column = {name: shapes[:, index] for name, index in ARTICULATOR_INDEX.items()}
    open_lips = 1 - np.clip(column["closure"], 0, 1)
    face = np.zeros((len(shapes), EXPRESSION_DIM))
    for action, values in (
        ("lips_part", column["part"] * open_lips),
        ("lip_pucker", column["pucker"]),
        ("lip_funnel", column["funnel"] * open_lips),
        ("lip_press", 0.25 * column["closure"]),
        ("lip_close", column["closure"] * column["jaw"] / LIP_CLOSE_JAW_RAD),
        ("lower_lip_suck", column["tuck"]),
        ("lip_stretch", column["stretch"]),
        ("upper_lip_raise", column["upper_raise"] * open_lips),
        ("lower_lip_depress", column["lower_depress"] * open_lips),
        ("upper_lip_protrude", column["protrude"]),
        ("lower_lip_protrude", column["protrude"]),
        ("tongue_tip_raise", column["tongue_tip"]),
        ("tongue_out", column["tongue_out"]),
    ):
        face[:, list(expressions.sides(action))] = values[:, None]
    return face


def stress_strengths(segments: Segments, audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds stressed vowels with raised pitch, which get brow emphasis.

    The strength grows linearly with the pitch of the vowel relative to the median of all voiced stressed vowels, from 0
    at -1 semitone to 1 at 5 semitones.

    Returns:
        The centres of the vowels in seconds, `[n]`, and their strengths from 0 to 1, `[n]`.
    """
    centres_s = ((segments.starts_s + segments.ends_s) / 2)[segments.stressed]
    pitches = np.array([acoustics.pitch_hz(audio, time_s) for time_s in centres_s])
    voiced = pitches > 0
    if not voiced.any():
        return np.zeros(0), np.zeros(0)
    semitones = 12 * np.log2(pitches[voiced] / np.median(pitches[voiced]))
    return centres_s[voiced], np.clip((semitones + 1.0) / 6.0, 0.0, 1.0)


def compose(
    segments: Segments,
    audio: np.ndarray,
    *,
    emotion: str,
    strength: float,
    effort_db: float,
    style: MotionStyle,
    rng: np.random.Generator,
) -> np.ndarray:
    """Composes the motion of a clip.

    Args:
        segments: Sounds of the clip in time.
        audio: `[s]` int16 samples at 16 kHz, a whole number of motion frames long.
        emotion: Name of the emotion.
        strength: Amplitude of the expression; 1 is the full prototype.
        effort_db: Vocal effort in dB relative to calm speech.
        style: Motion style of the speaker.
        rng: Random generator for the timing of the expression, blinks, emphasis and noise.

    Returns:
        `[t, 53]` float32: action coefficients in [-0.5, 1.5], then the jaw's axis-angle in radians.
    """
    level_db = acoustics.frame_level_db(audio)
    num_frames = len(level_db)
    jaw_factor = 1 + (_SURPRISE_JAW * strength if emotion == "surprised" else 0.0)
    shapes = articulate(segments, level_db, effort_db=effort_db, jaw_factor=jaw_factor, style=style)
    speech = lip_actions(shapes)
    variation = np.exp(rng.normal(0.0, 0.12, EXPRESSION_DIM))
    amplitude = strength * expressions.envelope(num_frames, rng)
    feeling = amplitude[:, None] * (expressions.prototype(emotion, style) * variation)
    feeling = _give_way_to_speech(feeling, shapes)
    face = speech + feeling + _habits(style) + expressions.noise(num_frames, EXPRESSION_DIM, rng)
    times_s, emphasis = stress_strengths(segments, audio)
    chosen = emphasis * rng.uniform(0.1, 0.4, len(emphasis)) * (rng.uniform(size=len(emphasis)) < 0.6)
    brows = expressions.brow_emphasis(num_frames, times_s, chosen)
    for action in ("inner_brow_raise", "outer_brow_raise"):
        face[:, list(expressions.sides(action))] += brows[:, None]
    eyes = list(expressions.sides("eye_close"))
    face[:, eyes] = np.maximum(face[:, eyes], expressions.blinks(num_frames, style, rng)[:, None])
    motion = np.zeros((num_frames, MOTION_DIM), np.float32)
    motion[:, :EXPRESSION_DIM] = np.clip(face, _MIN, _MAX)
    motion[:, EXPRESSION_DIM:] = 0.1 * expressions.noise(num_frames, 3, rng)
    motion[:, EXPRESSION_DIM] = np.maximum(
        motion[:, EXPRESSION_DIM] + shapes[:, ARTICULATOR_INDEX["jaw"]], 0.0
    )
    return motion


def _give_way_to_speech(feeling: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Attenuates, in place, expressions `[t, 50]` that would part closed lips or press open ones."""
    closure = np.clip(shapes[:, ARTICULATOR_INDEX["closure"]], 0, 1)
    opening = np.clip(shapes[:, ARTICULATOR_INDEX["jaw"]] / 0.15, 0, 1)
    for action in _OPENING_ACTIONS:
        feeling[:, list(expressions.sides(action))] *= (1 - 0.85 * closure)[:, None]
    for action in _CLOSING_ACTIONS:
        feeling[:, list(expressions.sides(action))] *= (1 - 0.5 * opening)[:, None]
    return feeling


def _habits(style: MotionStyle) -> np.ndarray:
    """Returns the speaker's resting face, `[50]`."""
    face = np.zeros(EXPRESSION_DIM)
    for action in ("inner_brow_raise", "outer_brow_raise"):
        face[list(expressions.sides(action))] = max(style.brow_raise, 0.0)
    face[list(expressions.sides("brow_lower"))] = max(-style.brow_raise, 0.0)
    face[list(expressions.sides("lip_corner_pull"))] = max(style.mouth_corners, 0.0)
    face[list(expressions.sides("lip_corner_depress"))] = max(-style.mouth_corners, 0.0)
    face[ACTION_INDEX["mouth_shift_left"]] = 0.2 * style.smile_asymmetry
    return face


def _smooth(values: np.ndarray) -> np.ndarray:
    """Averages over 3 neighbouring frames, `[t]` -> `[t]`."""
    padded = np.pad(values, 1, mode="edge")
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3
