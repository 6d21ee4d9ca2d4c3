"""`deltadex map`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli import map_figure
from app.cli.console import Api, AsJson, connect, out, print_json


def draw_map(
    file: Annotated[Path, typer.Option("--out", "-o", help="The figure: a name in .svg, .png or .pdf.")],
    space: Annotated[str | None, typer.Option(help="Key or feature of a space; the default one without.")] = None,
    width: Annotated[float, typer.Option(min=1, max=50, help="Inches.")] = 7.0,
    height: Annotated[float, typer.Option(min=1, max=50, help="Inches.")] = 5.0,
    dpi: Annotated[int, typer.Option(min=30, max=1_200, help="Dots per inch, of a PNG and of very many points.")] = 300,
    names: Annotated[bool, typer.Option("--names", help="Write each model's name beside its point.")] = False,
    legend: Annotated[bool, typer.Option(help="List the clusters.")] = True,
    title: Annotated[str | None, typer.Option(help="What to write above it.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Draw the map for a paper: places, clusters and their names; what is misplaced is faded."""
    with connect(api) as client:
        answer = client.get("/v1/map", space=space)
    map_figure.draw(answer, file, map_figure.Style(width, height, dpi, names, legend, title))
    models = len(map_figure.names(answer)) - len(answer["gone"])
    told = {"file": str(file), "space": answer["space"], "models": models, "clusters": len(answer["clusters"])}
    if as_json:
        print_json(told)
    else:
        out.print(f"{file}: {models} models, {len(answer['clusters'])} clusters", highlight=False, soft_wrap=True)
