"""Matplotlib figures in the style of this project, encoded as PNG without a display."""

import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Blue and vermilion of the palette of Okabe and Ito (2008), which colour-blind people can tell apart.
SPEECH_COLOUR, MOTION_COLOUR = "#0072B2", "#D55E00"
INK, GREY = "#222222", "#888888"
_DPI = 130


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """Returns an empty white figure that arranges its axes automatically."""
    return Figure(figsize=(width_inches, height_inches), dpi=_DPI, facecolor="white", layout="constrained")


def style_axes(axes: Axes, title: str = "") -> None:
    """Sets the title and small tick labels, and removes the frame at the top and the right."""
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=8, length=2.5)
    for spine in ("top", "right"):
        axes.spines[spine].set_visible(False)


def encode_png(figure: Figure) -> bytes:
    """Returns the content of a PNG file."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
