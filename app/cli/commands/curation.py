"""`deltadex tag | untag | note | alias` and `deltadex aliases [delete]`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.table import Table

from app.cli import render
from app.cli.console import Api, AsJson, connect, out, print_json
from app.cli.listing import group_with_list
from app.cli.render import table_of
from catalog.models.repo_ref import ALIAS_OWNER, RepoRef

ALIASES = "/v1/aliases"
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model; local/NAME for a folder, alias/NAME.")]
Tags = Annotated[list[str], typer.Argument(metavar="TAG...", help='Team tags, such as prod "reviewed by legal".')]
AliasName = Annotated[str, typer.Argument(metavar="NAME", help="The alias, without alias/.")]


def tag(model: Model, tags: Tags, api: Api = None, as_json: AsJson = False) -> None:
    """Add team tags to a model. They are apart from the tags that it has on the Hub."""
    _change_tags(model, {"add": tags}, api, as_json)


def untag(model: Model, tags: Tags, api: Api = None, as_json: AsJson = False) -> None:
    """Remove team tags from a model."""
    _change_tags(model, {"remove": tags}, api, as_json)


def note(
    model: Model,
    text: Annotated[str | None, typer.Argument(help="The note, in place of an earlier one.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the note.")] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Set the team's note on a model, or delete it."""
    if delete == (text is not None):
        raise typer.BadParameter("give either a TEXT or --delete")
    path = f"/v1/models/{RepoRef(model).repo_id}/note"
    with connect(api) as client:
        curation = client.delete(path) if delete else client.put(path, {"text": text})
    _print_curation(curation, as_json)


def alias(name: AliasName, model: Model, api: Api = None, as_json: AsJson = False) -> None:
    """Make alias/NAME a name of a model, in place of the model that it referred to."""
    with connect(api) as client:
        changed = client.put(_path(name), {"repo_id": RepoRef(model).repo_id})
    print_json(changed) if as_json else out.print(_aliases_table([changed]))


def _change_tags(model: str, change: dict[str, list[str]], api: str | None, as_json: bool) -> None:
    with connect(api) as client:
        curation = client.patch(f"/v1/models/{RepoRef(model).repo_id}/team-tags", change)
    _print_curation(curation, as_json)


def _print_curation(curation: dict[str, Any], as_json: bool) -> None:
    print_json(curation) if as_json else out.print(render.curation(curation))


def _path(name: str) -> str:
    return f"{ALIASES}/{quote(name, safe='')}"


def _aliases_table(aliases: Iterable[dict[str, Any]]) -> Table:
    table = table_of("alias", "model", "author", "set")
    for row in aliases:
        name = f"{ALIAS_OWNER}/{row['alias']}"
        table.add_row(name, escape(row["repo_id"]), row["author"], row["written_at"][:10])
    return table


aliases = group_with_list(ALIASES, _aliases_table, help="List the aliases of models; delete one.")


@aliases.command()
def delete(name: AliasName, api: Api = None, as_json: AsJson = False) -> None:
    """Delete an alias. The model stays."""
    with connect(api) as client:
        deleted = client.delete(_path(name))
    print_json(deleted) if as_json else out.print(f"deleted {ALIAS_OWNER}/{deleted['alias']}")
