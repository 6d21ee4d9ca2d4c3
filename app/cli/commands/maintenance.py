"""`deltadex sweep`."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli.console import Api, AsJson, connect, out, print_json
from app.cli.render import table_of

SWEEP = "/v1/admin/sweep"
DAY = 86_400  # seconds


def sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be deleted, and delete nothing.")] = False,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Delete what is older than the settings say; workers do the same every hour. Needs the key of an admin."""
    with connect(api) as client:
        if dry_run:
            preview = client.get(SWEEP)
            print_json(preview) if as_json else out.print(_preview_table(preview))
            return
        deleted: Counter[str] = Counter()
        complete = False
        while not complete:
            answer = client.post(SWEEP, {})
            deleted.update({kind["kind"]: kind["deleted"] for kind in answer["kinds"]})
            complete = answer["complete"]
    if as_json:
        print_json({"kinds": [{"kind": kind, "deleted": count} for kind, count in deleted.items()], "complete": True})
        return
    table = table_of("kind", "deleted")
    for kind, count in deleted.items():
        table.add_row(kind.replace("_", " "), f"{count:,}")
    out.print(table)


def _preview_table(preview: dict[str, Any]) -> Table:
    table = table_of("kind", "rows", "MB", "oldest", "would go", "MB", "after", "setting")
    for kind in preview["kinds"]:
        table.add_row(
            kind["kind"].replace("_", " "),
            f"{kind['rows']:,}",
            f"{kind['bytes'] / 2**20:,.1f}",
            (kind["oldest"] or "")[:10],
            f"{kind['expired']:,}",
            f"{kind['expired_bytes'] / 2**20:,.1f}",
            f"{kind['seconds'] / DAY:,.4g} days",
            kind["setting"],
        )
    return table
