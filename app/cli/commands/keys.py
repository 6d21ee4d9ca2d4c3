"""`deltadex keys`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.console import Api, AsJson, connect, notes, out, print_json
from app.cli.listing import group_with_list
from app.cli.render import table_of
from catalog.tables import Role

KEYS = "/v1/admin/keys"


def _table(rows: Iterable[dict[str, Any]]) -> Table:
    table = table_of("key", "name", "role", "created", "last used", "expires", "revoked")
    for key in rows:
        days = [(key[name] or "")[:10] for name in ("created_at", "last_used_at", "expires_at", "revoked_at")]
        table.add_row(key["prefix"], escape(key["name"]), key["role"], *days)
    return table


keys = group_with_list(KEYS, _table, help="List API keys; add or revoke one. Needs the key of an admin.")


@keys.command()
def add(
    name: Annotated[str, typer.Argument(help="Who or what the key is for.")],
    role: Annotated[Role, typer.Option(help="What its holder may do.")] = Role.READER,
    days: Annotated[float | None, typer.Option(help="Days until it expires. Default: never.")] = None,
    max_active_jobs: Annotated[int | None, typer.Option(help="Active jobs at a time.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key and print it. It is not stored and cannot be shown again."""
    with connect(api) as client:
        body = {"name": name, "role": role, "days": days, "max_active_jobs": max_active_jobs}
        key = client.post(KEYS, body)
    if as_json:
        print_json(key)
        return
    notes.print("Keep this key: it is not stored, and cannot be shown again.")
    out.print(key["key"], soft_wrap=True, markup=False, highlight=False)


@keys.command()
def revoke(
    prefix: Annotated[str, typer.Argument(help="The visible part of the key, from `deltadex keys`.")],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Revoke an API key. What it created stays."""
    with connect(api) as client:
        key = client.delete(f"{KEYS}/{prefix}")
    print_json(key) if as_json else out.print(_table([key]))
