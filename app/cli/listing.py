"""Command groups that print a list when they are called without a subcommand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import typer
from rich.console import RenderableType

from app.cli.console import Api, AsJson, admin_headers, connect, out, print_json


def group_with_list(
    path: str, table: Callable[[Iterable[dict[str, Any]]], RenderableType], *, help: str, as_admin: bool = False
) -> typer.Typer:
    """A command group that, without a subcommand, prints the list that the API returns at a path. The list is in the
    field that is named like the last part of the path.
    """
    group = typer.Typer(help=help, invoke_without_command=True)

    @group.callback()
    def list_(context: typer.Context, api: Api = None, as_json: AsJson = False) -> None:
        if context.invoked_subcommand is not None:
            return
        with connect(api) as client:
            page = client.get(path, headers=admin_headers() if as_admin else None)
        print_json(page) if as_json else out.print(table(page[path.rsplit("/", 1)[1]]))

    return group
