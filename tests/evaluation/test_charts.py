"""Geometry of the map, charts that can be opened, and self-contained pages."""

import io
import re

import numpy as np
import pytest
from matplotlib.image import imread

from deeptalk_jax.evaluation.charts import draw_confusions, draw_reliability
from deeptalk_jax.evaluation.emotion_space_chart import (
    EMOTION_COLOURS,
    draw_map,
    draw_variances,
    principal_axes,
    projected_ellipse,
    spread_labels,
)
from deeptalk_jax.evaluation.page import render_page
from deeptalk_jax.evaluation.result import Panel, Table
from deeptalk_jax.metrics.calibration import reliability
from deeptalk_jax.types import EMOTIONS, Gaussian


def test_principal_axes_by_hand():
    # Three times as far along (0, 3, 4) / 5 as along x, centred on (1, 1, 1).
    points = 1.0 + np.array([[-1, 0, 0], [1, 0, 0], [0, 1.8, 2.4], [0, -1.8, -2.4]])
    centre, directions, shares = principal_axes(points)
    np.testing.assert_allclose(centre, [1, 1, 1])
    np.testing.assert_allclose(directions, [[0, 0.6, 0.8], [1, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(shares, [0.9, 0.1])


def test_projected_ellipse_by_hand():
    axes = np.eye(3)[:2]
    assert projected_ellipse(np.array([9.0, 4.0, 100.0]), axes) == pytest.approx((6, 4, 0))
    width, height, angle = projected_ellipse(np.array([4.0, 9.0, 100.0]), axes)
    assert (width, height) == pytest.approx((6, 4))
    assert abs(angle) == pytest.approx(90)
    # Relative to the diagonals of the plane, the x axis is 45 degrees below the first one.
    diagonals = np.array([[1.0, 1.0], [-1.0, 1.0]]) / np.sqrt(2)
    width, height, angle = projected_ellipse(np.array([9.0, 4.0]), diagonals)
    assert (width, height) == pytest.approx((6, 4))
    assert angle % 180 == pytest.approx(135)


def test_samples_fill_the_ellipse():
    rng = np.random.default_rng(0)
    variance = np.array([0.5, 2.0, 0.1, 1.0])
    directions = np.linalg.qr(rng.standard_normal((4, 4)))[0][:2]
    samples = (np.sqrt(variance) * rng.standard_normal((20000, 4))) @ directions.T
    width, height, angle = projected_ellipse(variance, directions)
    turn = np.radians(angle)
    turned = samples @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    np.testing.assert_allclose(2 * turned.std(axis=0), [width, height], rtol=0.03)
    assert abs(np.corrcoef(turned.T)[0, 1]) < 0.03


def test_labels_keep_their_distance_order_and_bounds():
    np.testing.assert_allclose(spread_labels(np.array([0.5, 0.0, 0.45]), 0.2, 0.0, 1.0), [0.65, 0.0, 0.45])
    np.testing.assert_allclose(spread_labels(np.array([0.9, 0.9, 5.0]), 0.2, 0.0, 1.0), [0.6, 0.8, 1.0])
    np.testing.assert_allclose(spread_labels(np.array([0.1, 0.4, 0.9]), 0.2, 0.0, 1.0), [0.1, 0.4, 0.9])


def emotion_space():
    rng = np.random.default_rng(0)
    emotion = np.arange(24) % 8
    mean, log_variance = rng.standard_normal((2, 24, 5)) - [[[0.0]], [[3.0]]]
    return Gaussian(mean, log_variance), emotion


def draw_all():
    tower, emotion = emotion_space()
    values = np.random.default_rng(1).random(24)
    recall = {"speech": {1: 0.5, 2: 0.7}, "motion": {1: 0.3, 2: 0.9}}
    return {
        "map": draw_map({"speech": tower, "motion": tower}, emotion),
        "variances": draw_variances(
            {"speech": values, "motion": values},
            np.arange(24) % 2 + 1,
            recall,
            {name: [0.9, 0.5] for name in recall},
            0.1,
        ),
        "confusion": draw_confusions({"all": np.diag([3, 0, 1])}, ("a", "b", "c"), "found"),
        "reliability": draw_reliability(reliability(values, values > 0.5, np.ones(24))),
    }


def test_charts_are_not_blank():
    for name, picture in draw_all().items():
        pixels = imread(io.BytesIO(picture))
        assert min(pixels.shape[:2]) > 300, name
        assert pixels[..., :3].std() > 0.02, name


def test_map_shows_each_emotion_in_its_colour():
    tower, emotion = emotion_space()
    pixels = imread(io.BytesIO(draw_map({"speech": tower, "motion": tower}, emotion)))
    shown = {tuple(pixel) for pixel in np.round(255 * pixels[::1, ::1, :3]).astype(int).reshape(-1, 3)}
    assert len(EMOTION_COLOURS) == len(EMOTIONS)
    for colour in EMOTION_COLOURS:
        assert tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) in shown, colour


def test_page_is_self_contained_and_escapes_text():
    panels = [
        Panel("p", "A < B", "how & why", b"\x89PNG", Table(("x", "y"), [("<a>", 0.123456), ("b", None)]))
    ]
    page = render_page("T & T", "lead", {"ece": 0.04321}, panels)
    assert "data:image/png;base64,iVBORw==" in page
    assert "<td>0.1235</td>" in page
    assert "<td></td>" in page
    assert "<td>0.04321</td>" in page
    for text in ("T &amp; T", "A &lt; B", "how &amp; why", "&lt;a&gt;"):
        assert text in page
    assert not re.search(r'(src|href)="(?!data:)', page)
