"""Draws the map as a figure for papers with matplotlib: SVG with editable text, PNG, or PDF."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from catalog.errors import InvalidInput, MissingExtra

FORMATS = (".svg", ".png", ".pdf")
MAX_LEGEND = 20  # clusters in the legend
FADING = 0.8  # by how much the opacity of a point is reduced if all its true neighbors are elsewhere
GRAY = (0.6, 0.63, 0.66)


@dataclass(frozen=True)
class Style:
    """Width and height in inches, and dots per inch. `names` prints the name of each model next to its point, `legend`
    lists the clusters.
    """

    width: float = 7.0
    height: float = 5.0
    dpi: int = 300
    names: bool = False
    legend: bool = True
    title: str | None = None


def draw(response: dict[str, Any], out: Path, style: Style) -> None:
    """Draw a response of `GET /v1/map` and write it to `out`. The same response gives the same bytes.

    Raises `InvalidInput` for an unsupported format, and `MissingExtra` if matplotlib is not installed.
    """
    if out.suffix.lower() not in FORMATS:
        raise InvalidInput(f"{out.name}: unsupported format. Use one of {', '.join(FORMATS)}.")
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtra("matplotlib is not installed. Run `pip install 'deltadex[evaluate]'`.") from error
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "deltadex", "pdf.fonttype": 42, "font.size": 8}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(style.width, style.height), layout="constrained")
        FigureCanvasAgg(figure)
        _draw_points(figure.add_subplot(), response, style)
        # without a date, so that the same map gives the same bytes
        metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(out.suffix.lower())
        figure.savefig(out, dpi=style.dpi, metadata=metadata)


def names(response: dict[str, Any]) -> list[str]:
    """The repo ids of the points of a response: those of the layout, then the arrivals."""
    by_owner = ([f"{owner}/{name}" for name in models] for owner, models in response["points"]["owners"])
    return [*chain.from_iterable(by_owner), *response["arrivals"]["repo_ids"]]


def color(cluster: int) -> tuple[float, float, float]:
    """The color of a cluster on the map page: hues in steps of the golden angle."""
    if cluster < 0:
        return GRAY
    return colorsys.hls_to_rgb((cluster * 137.508 + 210) % 360 / 360, (0.48, 0.38, 0.58)[cluster // 9 % 3], 0.68)


def _draw_points(axes: Any, response: dict[str, Any], style: Style) -> None:
    points, arrivals = response["points"], response["arrivals"]
    removed, first_arrival = set(response["removed"]), len(points["x"])
    x, y, cluster = (points[column] + arrivals[column] for column in ("x", "y", "cluster"))
    neighbors = max(1, response["neighbors"])
    opacity = [1 - FADING * count / neighbors for count in points["distortion"]] + [1.0] * len(arrivals["x"])
    rows = [row for row in range(len(x)) if row not in removed]
    size = max(0.3, min(30.0, 900 / max(1, len(rows))))  # square points of 1/72 inch
    for are_arrivals in (False, True):
        group = [row for row in rows if (row >= first_arrival) == are_arrivals]
        colors = [(*color(cluster[row]), opacity[row]) for row in group]
        markers = {"facecolors": "none", "edgecolors": colors} if are_arrivals else {"c": colors, "linewidths": 0}
        rasterized = len(rows) > 5_000
        axes.scatter([x[row] for row in group], [y[row] for row in group], size, **markers, rasterized=rasterized)
    if style.names:
        repo_ids = names(response)
        for row in rows:
            axes.annotate(repo_ids[row], (x[row], y[row]), (2, 2), textcoords="offset points", fontsize=4)
    _draw_frame(axes, response, style)


def _draw_frame(axes: Any, response: dict[str, Any], style: Style) -> None:
    from matplotlib.lines import Line2D

    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.margins(0.05)
    if style.title:
        axes.set_title(_escape(style.title))
    clusters = response["clusters"][:MAX_LEGEND]
    if style.legend and clusters:
        handles = [
            Line2D([], [], linestyle="", marker="o", markersize=4, color=color(index), label=_escape(label))
            for index, label in enumerate(f"{cluster['name']} ({cluster['size']})" for cluster in clusters)
        ]
        axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _escape(text: str) -> str:
    """Escape dollar signs, which would start a formula in matplotlib."""
    return text.replace("$", r"\$")
