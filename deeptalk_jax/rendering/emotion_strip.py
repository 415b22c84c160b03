"""Emotion strips: one sentence in several emotions as one picture, with a row per emotion and a column per time."""

from collections.abc import Mapping, Sequence

import numpy as np

from deeptalk_jax.rendering.figure import encode_png, new_figure

_PICTURE_INCHES = 1.5
_LABEL_INCHES = 0.8


def draw_emotion_strip(rows: Mapping[str, Sequence[np.ndarray]], times_s: Sequence[float]) -> bytes:
    """Draws an emotion strip.

    Args:
        rows: emotion -> pictures `[height, width, 3]` uint8, one per time.
        times_s: times of the pictures, seconds.

    Returns:
        Contents of a PNG file.

    Raises:
        ValueError: There are no pictures, or a row does not have one picture per time.
    """
    for name, pictures in rows.items():
        if len(pictures) != len(times_s):
            raise ValueError(
                f"{name}: {len(pictures)} pictures for {len(times_s)} times; expected equal numbers"
            )
    if not rows or not len(times_s):
        raise ValueError("no pictures to draw; expected at least one row and one time")
    picture_height, picture_width = next(iter(rows.values()))[0].shape[:2]
    width = _LABEL_INCHES + _PICTURE_INCHES * len(times_s)
    height = _PICTURE_INCHES * picture_height / picture_width * len(rows) + 0.25
    figure = new_figure(width, height)
    figure.set_layout_engine("none")  # the grid sets all positions
    grid = figure.add_gridspec(
        len(rows), len(times_s), left=_LABEL_INCHES / width, right=1.0, bottom=0.0, top=1.0 - 0.25 / height,
        wspace=0.02, hspace=0.02,
    )  # fmt: skip
    for row, (name, pictures) in enumerate(rows.items()):
        for column, (picture, time_s) in enumerate(zip(pictures, times_s, strict=True)):
            axis = figure.add_subplot(grid[row, column])
            axis.imshow(picture)
            axis.set_axis_off()
            if row == 0:
                axis.set_title(f"{time_s:.2f} s", fontsize=8, pad=3)
            if column == 0:
                axis.text(-0.06, 0.5, name, transform=axis.transAxes, fontsize=10, ha="right", va="center")
    return encode_png(figure)
