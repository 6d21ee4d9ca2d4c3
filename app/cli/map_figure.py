"""The map as a figure for papers, by matplotlib: SVG with its text as text, PNG, or PDF."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from catalog.errors import InvalidInput, MissingExtra

FORMATS = (".svg", ".png", ".pdf")
LISTED = 20  # clusters in the legend
FADING = 0.8  # how much of a point's colour goes when all its true neighbours are elsewhere
GREY = (0.6, 0.63, 0.66)


@dataclass(frozen=True)
class Style:
    """Inches and dots per inch; `names` writes each model's name beside its point, `legend` lists the clusters."""

    width: float = 7.0
    height: float = 5.0
    dpi: int = 300
    names: bool = False
    legend: bool = True
    title: str | None = None


def draw(answer: dict[str, Any], out: Path, style: Style) -> None:
    """Write what `GET /v1/map` answers to `out`. The same answer gives the same bytes.

    Raises `InvalidInput` for a format that is not known, `MissingExtra` without matplotlib.
    """
    if out.suffix.lower() not in FORMATS:
        raise InvalidInput(f"{out.name}: a figure is one of {', '.join(FORMATS)}.")
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtra("No matplotlib: drawing the map needs `pip install 'deltadex[evaluate]'`.") from error
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "deltadex", "pdf.fonttype": 42, "font.size": 8}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(style.width, style.height), layout="constrained")
        FigureCanvasAgg(figure)
        _fill(figure.add_subplot(), answer, style)
        # no date in the file, or the same map would never give the same bytes
        metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(out.suffix.lower())
        figure.savefig(out, dpi=style.dpi, metadata=metadata)


def names(answer: dict[str, Any]) -> list[str]:
    """The repo ids of an answer's points, those of the map first, then those placed since."""
    owned = ([f"{owner}/{name}" for name in models] for owner, models in answer["points"]["owners"])
    return [*chain.from_iterable(owned), *answer["placed"]["repo_ids"]]


def colour(cluster: int) -> tuple[float, float, float]:
    """As the page colours them: steps of the golden angle around the wheel."""
    if cluster < 0:
        return GREY
    return colorsys.hls_to_rgb((cluster * 137.508 + 210) % 360 / 360, (0.48, 0.38, 0.58)[cluster // 9 % 3], 0.68)


def _fill(axes: Any, answer: dict[str, Any], style: Style) -> None:
    points, placed = answer["points"], answer["placed"]
    gone, fitted = set(answer["gone"]), len(points["x"])
    x, y, cluster = (points[each] + placed[each] for each in ("x", "y", "cluster"))
    most = max(1, answer["neighbours"])
    opacity = [1 - FADING * count / most for count in points["distortion"]] + [1.0] * len(placed["x"])
    rows = [row for row in range(len(x)) if row not in gone]
    size = max(0.3, min(30.0, 900 / max(1, len(rows))))  # square points of 1/72 inch
    for is_placed in (False, True):
        chosen = [row for row in rows if (row >= fitted) == is_placed]
        colours = [(*colour(cluster[row]), opacity[row]) for row in chosen]
        look = {"facecolors": "none", "edgecolors": colours} if is_placed else {"c": colours, "linewidths": 0}
        axes.scatter([x[row] for row in chosen], [y[row] for row in chosen], size, **look, rasterized=len(rows) > 5_000)
    if style.names:
        called = names(answer)
        for row in rows:
            axes.annotate(called[row], (x[row], y[row]), (2, 2), textcoords="offset points", fontsize=4)
    _finish(axes, answer, style)


def _finish(axes: Any, answer: dict[str, Any], style: Style) -> None:
    from matplotlib.lines import Line2D

    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.margins(0.05)
    if style.title:
        axes.set_title(_plain(style.title))
    clusters = answer["clusters"][:LISTED]
    if style.legend and clusters:
        handles = [
            Line2D([], [], linestyle="", marker="o", markersize=4, color=colour(place), label=_plain(label))
            for place, label in enumerate(f"{each['name']} ({each['size']})" for each in clusters)
        ]
        axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _plain(text: str) -> str:
    """Names are strangers' words: a dollar in them begins no formula."""
    return text.replace("$", r"\$")
