"""`deltadex audit`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape

from app.cli.console import Api, AsJson, connect, notes, out, print_json
from app.cli.render import table_of

MAX_ROWS = 200


def audit(
    target: Annotated[str | None, typer.Argument(help="Only acts about this model, job, key, ...")] = None,
    actor: Annotated[str | None, typer.Option(help="Only acts of keys with this in their name or prefix.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=MAX_ROWS, help="Maximum number to show.")] = 50,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show who changed what, newest first. Needs the key of an admin."""
    with connect(api) as client:
        page: dict[str, Any] = client.get("/v1/admin/audit", target=target, actor=actor, limit=limit)
    if as_json:
        print_json(page)
        return
    table = table_of("when", "who", "from", "what", "about", "ended")
    for entry in page["audit"]:
        when = entry["at"][:19].replace("T", " ")
        names = ("actor", "address", "action", "target", "outcome")
        table.add_row(when, *(escape(entry[name]) for name in names))
    out.print(table)
    if page["next_cursor"]:
        notes.print(f"There may be more: --limit {min(2 * limit, MAX_ROWS)} shows more of them.")
