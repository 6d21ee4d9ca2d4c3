"""`deltadex search | revisions | show | neighbors`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from app.cli import render
from app.cli.console import Api, AsJson, connect, notes, out, print_json
from app.cli.render import state, table_of
from catalog.models.repo_ref import RepoRef


def search(
    words: Annotated[list[str], typer.Argument(help="Words of a name, a tag or a card; the last may be begun.")],
    base: Annotated[str | None, typer.Option(help="Fine-tunes of this base model alone.")] = None,
    owner: Annotated[str | None, typer.Option(help="Models of this owner alone.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="How many.")] = 20,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Find models by what their names, tags and cards say."""
    with connect(api) as client:
        found = client.get("/v1/models", q=" ".join(words), base=base, owner=owner, limit=limit)
    print_json(found) if as_json else out.print(_models(found["models"]))


def revisions(
    repo_id: Annotated[str, typer.Argument(help="A model; a folder's is local/NAME.")],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show a model's history, and how far it moved from one revision to the next."""
    repo_id = RepoRef(repo_id).repo_id
    with connect(api) as client:
        found = client.get(f"/v1/models/{repo_id}/revisions")
    print_json(found) if as_json else out.print(_revisions(found["revisions"]))


def _models(found: list[dict[str, Any]]) -> Table:
    table = table_of("model", "state", "base", "downloads", "tags")
    for each in found:
        told = each["metadata"]
        base = each["revision"]["base"]["repo_id"] if each["revision"] else ""
        downloads = "" if told["downloads"] is None else str(told["downloads"])
        table.add_row(each["repo_id"], state(each["state"]), base, downloads, escape(" ".join(told["tags"][:8])))
    return table


def _revisions(found: list[dict[str, Any]]) -> Table:
    table = table_of("revision", "embedded", "feature", "norm", "norm before", "cosine to it")
    for each in found:
        name = each["sha"][:12] + (" *" if each["current"] else "")
        for move in each["moves"] or [None]:
            row = (
                [move["feature"], *(_figure(move[name]) for name in ("norm", "norm_before", "cosine"))] if move else []
            )
            table.add_row(name, each["created_at"][:19].replace("T", " "), *row)
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def neighbors(
    repo_id: Annotated[str, typer.Argument(help="An indexed model; a folder's is local/NAME.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 10,
    min_similarity: Annotated[float, typer.Option(min=-1, max=1, help="Leave out what has a smaller cosine.")] = -1,
    space: Annotated[str | None, typer.Option(help="Key or feature of a space, such as meaning.")] = None,
    geometry: Annotated[str | None, typer.Option(help="raw, or one that was fitted; the best without.")] = None,
    base: Annotated[list[str] | None, typer.Option(help="Fine-tunes of this base alone; repeatable.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show the models nearest to an indexed one."""
    repo_id = RepoRef(repo_id).repo_id  # what goes into a path is a name and nothing else
    asked: dict[str, Any] = {
        "k": k,
        "min_similarity": min_similarity,
        "space": space,
        "geometry": geometry,
        "base": base,
    }
    with connect(api) as client:
        answer = client.get(f"/v1/models/{repo_id}/neighbors", **asked)
    print_json(answer) if as_json else out.print(render.neighbor_list(answer["neighbors"]))
    if answer["note"]:
        notes.print(answer["note"])


def show(
    repo_id: Annotated[str, typer.Argument(help="A model; a folder's is local/NAME.")],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show a model: its base and how that was found, how far it moved it, and which tokens it promotes."""
    repo_id = RepoRef(repo_id).repo_id
    with connect(api) as client:
        model = client.get(f"/v1/models/{repo_id}")
    print_json(model) if as_json else out.print(render.model(model))
