"""Joints and skinning weights: smooth for jaw and neck in the skin, rigid for teeth and eyes."""

import numpy as np

from deeptalk_jax.head.procedural.anatomy import Anatomy
from deeptalk_jax.head.procedural.numerics import smoothstep
from deeptalk_jax.head.procedural.skin import EYEBALL_CENTRE

ROOT, NECK, JAW, LEFT_EYE, RIGHT_EYE = range(5)

JAW_JOINT = np.array([0.0, -2.0, 4.0])  # mm, half-way between the two jaw joints in front of the ears

# Share of the lip edge's jaw weight in each ring of the mouth cavity, front to back.
_CAVITY_JAW = (1.0, 1.0, 1.0, 0.95, 0.8, 0.5, 0.2, 0.0)


def jaw_weight(anatomy: Anatomy) -> np.ndarray:
    """Returns the jaw weight `[v]`: 1 on the lower lip, chin, lower teeth and tongue, 0 on the upper lip."""
    points, upper = anatomy.points, anatomy.upper
    # Distance below the line from the jaw joint to the mouth corner, in the side view.
    line = np.array([-41.5, 82.0]) - JAW_JOINT[1:]
    normal = np.array([-line[1], line[0]]) / np.hypot(*line)
    below = (points[:, 1:] - JAW_JOINT[1:]) @ normal
    cheek = smoothstep(-8.0, 26.0, below)
    reach = np.hypot(points[:, 0] / 30.0, anatomy.above_seam / 22.0)
    near_mouth = smoothstep(1.75, 0.85, reach) * smoothstep(30.0, 50.0, points[:, 2])
    weight = cheek + near_mouth * (1.0 - upper - cheek)
    # Skin under the chin and on the throat follows the neck.
    throat = smoothstep(-78.0, -112.0, points[:, 1] - 0.35 * (points[:, 2] - 40.0))
    back = smoothstep(2.0, 34.0, points[:, 2])
    weight = weight * (1.0 - throat) * back
    weight[~anatomy.soft] = 0.0
    weight[anatomy.part("left_ear", "right_ear", "hair")] = 0.0
    weight[anatomy.part("lower_teeth", "tongue")] = 1.0
    return _cavity(anatomy, weight)


def _cavity(anatomy: Anatomy, weight: np.ndarray) -> np.ndarray:
    inside = np.flatnonzero(anatomy.part("mouth_inside"))
    num_spokes = anatomy.layout.mouth_rings.shape[1]
    share = np.repeat(_CAVITY_JAW, num_spokes)
    weight = weight.copy()
    weight[inside] = share * weight[anatomy.leader[inside]]
    return weight


def skinning_weights(anatomy: Anatomy) -> np.ndarray:
    """Returns the weights `[v, 5]` of root, neck, jaw, left eye and right eye; each row sums to 1."""
    weights = np.zeros((len(anatomy.points), 5))
    jaw = jaw_weight(anatomy)
    with_head = smoothstep(-138.0, -78.0, anatomy.points[:, 1])
    with_head[~anatomy.part("skin")] = 1.0
    weights[:, JAW] = jaw * with_head
    weights[:, NECK] = with_head - weights[:, JAW]
    weights[:, ROOT] = 1.0 - with_head
    for joint, kind in ((LEFT_EYE, "left_eye"), (RIGHT_EYE, "right_eye")):
        weights[anatomy.part(kind)] = np.eye(5)[joint]
    return weights


def joint_regressor(anatomy: Anatomy) -> np.ndarray:
    """Returns the matrix `[5, v]` that computes each joint as the mean of vertices around it."""
    points = anatomy.points
    skin = anatomy.part("skin")
    side = skin & (np.hypot(points[:, 1] - JAW_JOINT[1], points[:, 2] - JAW_JOINT[2]) < 14.0)
    neck_band = skin & (np.abs(points[:, 1] + 105.0) < 12.0) & (points[:, 2] < 10.0)
    groups = {JAW: side, NECK: neck_band}
    regressor = np.zeros((5, len(points)))
    regressor[ROOT, anatomy.layout.neck_ring] = 1.0
    for joint, members in groups.items():
        regressor[joint, members] = 1.0
    for joint, kind in ((LEFT_EYE, "left_eye"), (RIGHT_EYE, "right_eye")):
        # The ring at 90 degrees from the gaze has its centre in the centre of the eyeball.
        regressor[joint, anatomy.part(kind) & (np.abs(points[:, 2] - EYEBALL_CENTRE[2]) < 0.01)] = 1.0
    return regressor / regressor.sum(axis=1, keepdims=True)
