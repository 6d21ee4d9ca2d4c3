"""`deltadex search | revisions | show | neighbors`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from app.cli import render
from app.cli.console import Api, AsJson, TeamTag, connect, notes, out, print_json
from app.cli.render import state, table_of
from catalog.geometry.transforms import GeometryChoice
from catalog.models.repo_ref import RepoRef


def search(
    words: Annotated[
        list[str] | None,
        typer.Argument(help="Words in names, tags or cards; the last one as a prefix. Default: all models."),
    ] = None,
    base: Annotated[str | None, typer.Option(help="Only fine-tunes of this base model.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only models of this owner.")] = None,
    team_tag: TeamTag = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="Number of results.")] = 20,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Search models by their names, tags and cards, or list those with a team tag."""
    with connect(api) as client:
        page = client.get(
            "/v1/models", q=" ".join(words or []) or None, base=base, owner=owner, team_tag=team_tag, limit=limit
        )
    print_json(page) if as_json else out.print(_models_table(page["models"]))


def revisions(
    repo_id: Annotated[str, typer.Argument(help="A model; local/NAME for a folder, alias/NAME.")],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show the revisions of a model, and how each differs from the previous one."""
    repo_id = RepoRef(repo_id).repo_id
    with connect(api) as client:
        page = client.get(f"/v1/models/{repo_id}/revisions")
    print_json(page) if as_json else out.print(_revisions_table(page["revisions"]))


def _models_table(models: list[dict[str, Any]]) -> Table:
    table = table_of("model", "state", "base", "downloads", "tags", "team tags")
    for model in models:
        metadata = model["metadata"]
        base = model["revision"]["base"]["repo_id"] if model["revision"] else ""
        tags = escape(" ".join(metadata["tags"][:8]))
        team_tags = escape(", ".join(tag["tag"] for tag in model["curation"]["team_tags"]))
        downloads = "" if metadata["downloads"] is None else str(metadata["downloads"])
        table.add_row(model["repo_id"], state(model["state"]), base, downloads, tags, team_tags)
    return table


def _revisions_table(revisions: list[dict[str, Any]]) -> Table:
    table = table_of("revision", "measured", "feature", "norm", "previous", "cosine")
    for revision in revisions:
        name = revision["sha"][:12] + (" *" if revision["current"] else "")
        for measurement in revision["measurements"] or [None]:
            cells = []
            if measurement:
                numbers = (_number(measurement[field]) for field in ("norm", "norm_before", "cosine"))
                cells = [measurement["feature"], *numbers]
            table.add_row(name, revision["created_at"][:19].replace("T", " "), *cells)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def neighbors(
    repo_id: Annotated[str, typer.Argument(help="An indexed model; local/NAME for a folder, alias/NAME.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Number of results.")] = 10,
    min_similarity: Annotated[float, typer.Option(min=-1, max=1, help="Leave out models with a smaller cosine.")] = -1,
    space: Annotated[str | None, typer.Option(help="Key or feature of a space, such as meaning.")] = None,
    geometry: Annotated[
        GeometryChoice, typer.Option(help="Compare in the default geometry of the feature, or raw vectors.")
    ] = GeometryChoice.DEFAULT,
    base: Annotated[list[str] | None, typer.Option(help="Only fine-tunes of this base; repeatable.")] = None,
    team_tag: TeamTag = None,
    include_low_confidence: Annotated[
        bool, typer.Option("--include-low-confidence", help="Show the nearest models even if none is confident.")
    ] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show the nearest neighbors of an indexed model."""
    repo_id = RepoRef(repo_id).repo_id  # validated, because it becomes part of the URL's path
    params: dict[str, Any] = {
        "k": k,
        "min_similarity": min_similarity,
        "space": space,
        "geometry": geometry,
        "base": base,
        "team_tag": team_tag,
        "include_low_confidence": include_low_confidence or None,
    }
    with connect(api) as client:
        answer = client.get(f"/v1/models/{repo_id}/neighbors", **params)
    print_json(answer) if as_json else out.print(render.neighbor_list(answer["neighbors"]))
    if answer["note"]:
        notes.print(answer["note"])


def show(
    repo_id: Annotated[str, typer.Argument(help="A model; local/NAME for a folder, alias/NAME.")],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show a model: its base and how that was determined, what the team says, its norms, and the tokens it promotes."""
    repo_id = RepoRef(repo_id).repo_id
    with connect(api) as client:
        model = client.get(f"/v1/models/{repo_id}")
    print_json(model) if as_json else out.print(render.model(model))
