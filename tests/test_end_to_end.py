"""From a corpus to a talking head: read this test first.

The fixture `trained` (tests/conftest.py) builds a corpus of 64 spoken sentences and trains all six stages on it in
turn, four steps each, with tiny models (tests/support/tiny_stages.py). Each stage reads the models of earlier stages;
the last one exports a model directory with all that inference needs.
"""

import math

import numpy as np

from deeptalk_jax import DeepTalk
from deeptalk_jax.types import EMOTIONS, MOTION_DIM, MOTION_RATE_HZ
from tests.support.sounds import babble


def test_trained_stages_turn_a_sound_into_motion(trained, tmp_path):
    model = DeepTalk.load(trained / "deeptalk_stage2" / "model")
    seconds = 2.03
    sound = babble(seconds)

    motion = model.animate(sound)
    frames = motion.frames()
    assert frames.shape == (math.ceil(seconds * MOTION_RATE_HZ), MOTION_DIM)
    assert np.isfinite(frames).all() and frames.std(axis=0).max() > 0, "the face does not move"

    motion.save(tmp_path / "motion.npz")
    with np.load(tmp_path / "motion.npz") as saved:
        assert saved["fps"] == MOTION_RATE_HZ
        np.testing.assert_array_equal(np.hstack([saved["expression"], saved["jaw_pose"]]), frames)

    # After four steps the emotions hardly differ in their most likely codes, so codes are sampled with one seed.
    sampling = {"temperature_top": 2.0, "temperature_bottom": 2.0, "seed": 1}
    faces = [model.animate(sound, emotion=f"{name}@3", **sampling).frames() for name in EMOTIONS]
    assert len({face.tobytes() for face in faces}) > 1, "the emotion does not change the face"
    again = model.animate(sound, emotion=f"{EMOTIONS[0]}@3", **sampling)
    np.testing.assert_array_equal(again.frames(), faces[0])
