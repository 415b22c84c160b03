"""The 53 numbers a frame of a synthetic clip: the speaking mouth, and the rest of the face on top of it."""

import numpy as np

from data_pipeline.synthetic_talk import acoustics, coarticulation, expressions, visemes
from data_pipeline.synthetic_talk.speakers import MotionStyle
from data_pipeline.synthetic_talk.visemes import ARTICULATOR_INDEX, Segments
from deeptalk_jax.head.actions import ACTION_INDEX
from deeptalk_jax.types import EXPRESSION_DIM, MOTION_DIM, MOTION_RATE_HZ

LIP_CLOSE_JAW_RAD = 0.1  # the opening of the jaw that `lip_close` = 1 bridges
_JAW_PER_DB = 0.03  # Opening grows with vocal effort: about 20 % for 6 dB (Geumann, 2001; Schulman, 1989)
_MAX_JAW_RAD = 0.42
_SURPRISE_JAW = 0.35
_OPENING_ACTIONS = ("lips_part", "upper_lip_raise", "lower_lip_depress", "lower_lip_protrude")
_CLOSING_ACTIONS = ("lip_press", "lip_tighten", "chin_raise", "lip_corner_depress")
_MIN, _MAX = -0.5, 1.5


def articulate(
    segments: Segments, level_db: np.ndarray, *, effort_db: float, jaw_factor: float, style: MotionStyle
) -> np.ndarray:
    """Motion of the articulators.

    Args:
        segments: the sounds of the clip.
        level_db: `[t]` level of each frame, relative to full scale.
        effort_db: vocal effort of the clip against calm speech.
        jaw_factor: the emotion's factor on the opening of the jaw.
        style: the speaker's habits.

    Returns:
        `[t, p]` in the order of `visemes.ARTICULATORS`; the jaw in radians.
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
    gains[:, closure] = 1.0  # everybody closes the lips
    shapes = shapes * gains
    shapes[:, jaw] = np.clip(shapes[:, jaw], 0.0, _MAX_JAW_RAD)
    return shapes


def lip_actions(shapes: np.ndarray) -> np.ndarray:
    """Articulators as action coefficients, `[t, p]` -> `[t, EXPRESSION_DIM]`.

    The lips close over the jaw: `lip_close` grows with the opening that it has to bridge, and whatever parts
    the lips gives way to it.
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
    """Stressed vowels whose pitch stands out: centres in seconds, and strengths in 0 to 1.

    The strength is the rise of the vowel's pitch over the median of the stressed vowels, 6 semitones counting
    full.
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
    """The motion of a clip.

    Args:
        segments: the sounds of the clip.
        audio: `[s]` int16 at 16 kHz, a whole number of frames.
        emotion: name of the emotion.
        strength: amplitude of the expression, 1 is the full prototype.
        effort_db: vocal effort against calm speech.
        style: the speaker's habits.
        rng: draws the timing of the expression, blinks, emphasis and noise.

    Returns:
        `[t, 53]` float32: action coefficients in [-0.5, 1.5], then jaw axis-angle in radians.
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
    """Lets go of what would part closed lips, or press open ones, `[t, EXPRESSION_DIM]`."""
    closure = np.clip(shapes[:, ARTICULATOR_INDEX["closure"]], 0, 1)
    opening = np.clip(shapes[:, ARTICULATOR_INDEX["jaw"]] / 0.15, 0, 1)
    for action in _OPENING_ACTIONS:
        feeling[:, list(expressions.sides(action))] *= (1 - 0.85 * closure)[:, None]
    for action in _CLOSING_ACTIONS:
        feeling[:, list(expressions.sides(action))] *= (1 - 0.5 * opening)[:, None]
    return feeling


def _habits(style: MotionStyle) -> np.ndarray:
    """The speaker's resting face, `[EXPRESSION_DIM]`."""
    face = np.zeros(EXPRESSION_DIM)
    for action in ("inner_brow_raise", "outer_brow_raise"):
        face[list(expressions.sides(action))] = max(style.brow_raise, 0.0)
    face[list(expressions.sides("brow_lower"))] = max(-style.brow_raise, 0.0)
    face[list(expressions.sides("lip_corner_pull"))] = max(style.mouth_corners, 0.0)
    face[list(expressions.sides("lip_corner_depress"))] = max(-style.mouth_corners, 0.0)
    face[ACTION_INDEX["mouth_shift_left"]] = 0.2 * style.smile_asymmetry
    return face


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over 3 frames, `[t]`."""
    padded = np.pad(values, 1, mode="edge")
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3
