"""Emotion strips: positions of pictures and labels, and rejected inputs."""

import io

import numpy as np
import pytest
from PIL import Image

from deeptalk_jax.rendering.emotion_strip import draw_emotion_strip


def test_rows_are_emotions_and_columns_are_times():
    colours = {"happy": [(250, 0, 0), (0, 250, 0)], "sad": [(0, 0, 250), (250, 250, 0)]}
    rows = {
        name: [np.full((40, 30, 3), colour, np.uint8) for colour in pair] for name, pair in colours.items()
    }
    strip = np.asarray(Image.open(io.BytesIO(draw_emotion_strip(rows, [0.0, 1.5]))).convert("RGB"))
    places = []
    for row in colours.values():
        for colour in row:
            shown = np.argwhere((np.abs(strip.astype(int) - colour) < 8).all(axis=-1))
            assert len(shown) > 2000
            places.append(shown.mean(axis=0))
    (a, b), (c, d) = places[:2], places[2:]
    assert a[1] < b[1] and c[1] < d[1] and a[0] < c[0] and abs(a[0] - b[0]) < 1
    assert strip[:, : int(a[1] / 3)].min() < 100  # dark text of the emotion names


def test_missing_pictures_raise():
    picture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="happy: 1 pictures for 2 times"):
        draw_emotion_strip({"happy": [picture]}, [0.0, 1.0])
    with pytest.raises(ValueError, match="no pictures"):
        draw_emotion_strip({}, [])
