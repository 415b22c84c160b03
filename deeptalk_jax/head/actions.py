"""Names of the 50 expression directions of the embedded head: one facial action per direction.

FLAME's expression directions are anonymous principal components. The embedded head names its directions after the
Facial Action Coding System (Ekman, Friesen and Hager, 2002; the AU numbers below), so that the embedded corpus can
describe motion by action name. A coefficient of 0 leaves the action out and 1 is its full natural strength; the corpus
uses values in [-0.5, 1.5]. Left and right are the speaker's own: left is +x.
"""

EXPRESSION_ACTIONS = (
    "lips_part",  # AU25, without jaw motion
    "lip_pucker",  # AU18
    "lip_funnel",  # AU22
    "lip_press",  # AU24
    "lip_close",  # closes the lips while the jaw is open, for p, b, m
    "upper_lip_suck",  # AU28, upper lip
    "lower_lip_suck",  # AU28, lower lip; tucks it under the upper teeth, for f, v
    "lip_tighten",  # AU23
    "upper_lip_protrude",
    "lower_lip_protrude",
    "upper_lip_raise_left",  # AU10
    "upper_lip_raise_right",
    "lower_lip_depress_left",  # AU16
    "lower_lip_depress_right",
    "lip_stretch_left",  # AU20
    "lip_stretch_right",
    "lip_corner_pull_left",  # AU12, smile
    "lip_corner_pull_right",
    "lip_corner_depress_left",  # AU15
    "lip_corner_depress_right",
    "dimple_left",  # AU14; one-sided, it expresses contempt
    "dimple_right",
    "chin_raise",  # AU17
    "mouth_shift_left",
    "jaw_thrust",  # AU29
    "jaw_shift_left",  # AU30
    "tongue_tip_raise",
    "tongue_out",  # AU19
    "cheek_puff",  # AU34
    "cheek_suck",  # AU35
    "cheek_raise_left",  # AU6
    "cheek_raise_right",
    "nasolabial_deepen",  # AU11
    "nose_wrinkle_left",  # AU9
    "nose_wrinkle_right",
    "nostril_dilate",  # AU38
    "inner_brow_raise_left",  # AU1
    "inner_brow_raise_right",
    "outer_brow_raise_left",  # AU2
    "outer_brow_raise_right",
    "brow_lower_left",  # AU4
    "brow_lower_right",
    "upper_lid_raise_left",  # AU5
    "upper_lid_raise_right",
    "lid_tighten_left",  # AU7
    "lid_tighten_right",
    "eye_close_left",  # AU43, used for blinks
    "eye_close_right",
    "nostril_compress",  # AU39
    "neck_tighten",  # AU21
)

ACTION_INDEX = {name: index for index, name in enumerate(EXPRESSION_ACTIONS)}
