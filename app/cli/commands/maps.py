"""`deltadex map`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli import map_figure
from app.cli.console import Api, AsJson, connect, out, print_json


def draw_map(
    file: Annotated[Path, typer.Option("--out", "-o", help="File of the figure, with suffix .svg, .png or .pdf.")],
    space: Annotated[str | None, typer.Option(help="Key or feature of a space. Default: the newest suitable.")] = None,
    width: Annotated[float, typer.Option(min=1, max=50, help="Inches.")] = 7.0,
    height: Annotated[float, typer.Option(min=1, max=50, help="Inches.")] = 5.0,
    dpi: Annotated[int, typer.Option(min=30, max=1_200, help="Dots per inch of a PNG and of rasterized points.")] = 300,
    names: Annotated[bool, typer.Option("--names", help="Print the name of each model next to its point.")] = False,
    legend: Annotated[bool, typer.Option(help="List the clusters.")] = True,
    title: Annotated[str | None, typer.Option(help="Title of the figure.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Draw the map as a figure for a paper, with its clusters and their names. Distorted points are faded."""
    with connect(api) as client:
        response = client.get("/v1/map", space=space)
    map_figure.draw(response, file, map_figure.Style(width, height, dpi, names, legend, title))
    models, clusters = len(map_figure.names(response)) - len(response["removed"]), len(response["clusters"])
    if as_json:
        print_json({"file": str(file), "space": response["space"], "models": models, "clusters": clusters})
    else:
        out.print(f"{file}: {models} models, {clusters} clusters", highlight=False, soft_wrap=True)
