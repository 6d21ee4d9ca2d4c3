"""What the groups of commands have in common: the list that a group shows by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import typer
from rich.console import RenderableType

from app.cli.console import Api, AsJson, admin_headers, connect, out, print_json


def group_with_list(
    path: str, table: Callable[[Iterable[dict[str, Any]]], RenderableType], *, help: str, as_admin: bool = False
) -> typer.Typer:
    """A group of commands that without one of them shows what the API lists at a path, under the path's last part."""
    group = typer.Typer(help=help, invoke_without_command=True)

    @group.callback()
    def listed(context: typer.Context, api: Api = None, as_json: AsJson = False) -> None:
        if context.invoked_subcommand is not None:
            return
        with connect(api) as client:
            found = client.get(path, headers=admin_headers() if as_admin else None)
        print_json(found) if as_json else out.print(table(found[path.rsplit("/", 1)[1]]))

    return group
