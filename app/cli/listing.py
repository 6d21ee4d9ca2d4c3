"""Command groups that print a list when they are called without a subcommand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from app.cli.console import Api, AsJson, connect, notes, out, print_json
from app.client import Client

PAGE_SIZE = 200  # rows, the most that the API returns at once
DEFAULT_LIMIT = 50  # rows


def group_with_list(
    path: str, table: Callable[[Iterable[dict[str, Any]]], RenderableType], *, help: str
) -> typer.Typer:
    """A command group that, without a subcommand, prints the list that the API returns at a path. The list is in the
    field that is named like the last part of the path.
    """
    group = typer.Typer(help=help, invoke_without_command=True)
    field = path.rsplit("/", 1)[1]

    @group.callback()
    def list_(
        context: typer.Context,
        limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number to show.")] = DEFAULT_LIMIT,
        api: Api = None,
        as_json: AsJson = False,
    ) -> None:
        if context.invoked_subcommand is not None:
            return
        with connect(api) as client:
            rows, has_more = list_rows(client, path, field, limit)
        if as_json:
            print_json({field: rows, "has_more": has_more})
            return
        out.print(table(rows))
        if has_more:
            notes.print(f"There are more {field}: --limit {2 * limit} shows more of them.")

    return group


def list_rows(client: Client, path: str, field: str, limit: int) -> tuple[list[dict[str, Any]], bool]:
    """Up to `limit` rows of the list at a path, from as many pages as it takes, and whether there are more."""
    page = get_pages(client, path, field, limit)
    return page[field], page["has_more"]


def get_pages(client: Client, path: str, field: str, limit: int, **query: Any) -> dict[str, Any]:
    """The first page of the list at a path, with up to `limit` rows from as many pages as it takes, and with
    `has_more` in place of a cursor.
    """
    first = page = client.get(path, limit=min(limit + 1, PAGE_SIZE), **query)
    rows = list(first[field])
    while len(rows) <= limit and page["next_cursor"] is not None:  # one more row tells whether there are more
        page = client.get(path, limit=min(limit + 1 - len(rows), PAGE_SIZE), cursor=page["next_cursor"], **query)
        rows += page[field]
    del first["next_cursor"]
    return first | {field: rows[:limit], "has_more": len(rows) > limit}
