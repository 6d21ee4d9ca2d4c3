"""`deltadex quarantine [lift]`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.console import Api, AsJson, connect, out, print_json
from app.cli.listing import PAGE_SIZE, group_with_list
from app.cli.render import table_of
from catalog.errors import QuarantineNotFound

QUARANTINE = "/v1/admin/quarantine"


def _table(entries: Iterable[dict[str, Any]]) -> Table:
    table = table_of("kind", "repo", "commit", "ends", "last end", "since")
    for row in entries:
        name = f"{row['repo_id']} on {row['submitted_base']}" if row["submitted_base"] else row["repo_id"]
        since, commit = (row["quarantined_at"] or "")[:10], (row["sha"] or "all")[:12]
        table.add_row(row["kind"], escape(name), commit, str(row["ends"]), row["error"]["code"], since)
    return table


quarantine = group_with_list(
    QUARANTINE,
    _table,
    help="List quarantined repos and bases, newest first; lift one. Needs the key of an admin.",
)


@quarantine.command()
def lift(
    repo_id: Annotated[str, typer.Argument(metavar="REPO", help="A quarantined repo or base.")],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Lift the quarantine of a repo or base, at all of its commits, so that it is tried again."""
    with connect(api) as client:
        entries = client.get(QUARANTINE, repo=repo_id, limit=PAGE_SIZE)["quarantine"]
        if not entries:
            raise QuarantineNotFound(f"{repo_id} is not quarantined. `deltadex quarantine` lists what is.")
        lifted = [client.delete(f"{QUARANTINE}/{entry['id']}") for entry in entries]
    print_json({"lifted": lifted}) if as_json else out.print(_table(lifted))
