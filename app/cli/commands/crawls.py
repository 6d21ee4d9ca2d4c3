"""`deltadex crawl` and `deltadex crawls [list | show | pause | resume | cancel]`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from app.cli.console import Api, AsJson, admin_headers, connect, notes, out, print_json
from app.cli.listing import group_with_list
from app.cli.render import error, state, table_of
from app.client import POLL_INTERVAL, Client
from catalog.errors import InvalidInput
from catalog.models.repo_ref import RepoRef

CRAWLS = "/v1/admin/crawls"
Number = Annotated[int, typer.Argument(metavar="ID", help="A crawl's number.")]


def crawl(
    base: Annotated[str | None, typer.Option(help="Every adapter and fine-tune of this base model.")] = None,
    relation: Annotated[list[str] | None, typer.Option(help="With --base: adapter or finetune alone.")] = None,
    owner: Annotated[str | None, typer.Option(help="Every model of a user or an organisation.")] = None,
    tag: Annotated[str | None, typer.Option(help="Every model with this tag.")] = None,
    collection: Annotated[str | None, typer.Option(help="The models of a collection: OWNER/NAME-ID.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A file of repo ids, one a line; # begins a remark."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Queue at most so many in one run.")] = None,
    min_downloads: Annotated[int | None, typer.Option(min=0, help="Leave out what was downloaded less.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Queue nothing: count, and estimate bytes and hours.")
    ] = False,
    every: Annotated[float | None, typer.Option(help="Begin anew so many hours after each run.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the lists are walked through.")] = True,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Queue what the Hub lists. Exits with 1 when that failed. Sends ADMIN_API_KEY where it is set."""
    named = {"base": base, "owner": owner, "tag": tag, "collection": collection}
    body: dict[str, Any] = {
        **named,
        "ids": read_ids(file) if file else None,
        "limit": limit,
        "min_downloads": min_downloads,
    }
    body |= {"relations": relation or None, "dry_run": dry_run, "every_hours": every}
    with connect(api) as client:
        found = client.post(CRAWLS, body, admin_headers())
        if wait:
            found = watch(client, found)
    print_json(found) if as_json else out.print(_table([found]), _summary(found))
    if found["state"] in ("failed", "cancelled"):
        raise typer.Exit(1)


def read_ids(file: Path) -> list[str]:
    """The repo ids in a file. Raises `InvalidRepoId`, and `InvalidInput` where there is none."""
    lines = (line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    if not (found := [RepoRef(line).repo_id for line in lines if line]):
        raise InvalidInput(f"{file} holds no repo id.")
    return found


def watch(client: Client, found: dict[str, Any]) -> dict[str, Any]:
    """Wait for a crawl, showing how far it is."""
    with notes.status("crawl: queued") as status:
        while found["state"] in ("queued", "running"):
            time.sleep(POLL_INTERVAL)
            found = client.get(f"{CRAWLS}/{found['id']}", headers=admin_headers())
            why = f", waits: {found['error']['code']}" if found["error"] else ""
            status.update(f"crawl {found['id']}: {found['listed']} listed, {found['queued']} queued{why}")
    return client.get(f"{CRAWLS}/{found['id']}", headers=admin_headers())


def _table(found: Iterable[dict[str, Any]]) -> Table:
    table = table_of("crawl", "source", "state", "pages", "listed", "queued", "unchanged", "skipped", "error")
    for each in found:
        counts = [str(each[name]) for name in ("pages", "listed", "queued", "unchanged", "skipped")]
        run = f"{each['id']}" + (f" run {each['run']}" if each["every_hours"] else "")
        table.add_row(run, escape(_source(each)), state(each["state"]), *counts, error(each))
    return table


crawls = group_with_list(CRAWLS, _table, help="Crawls of the Hub: those that run, wait and ran.", as_admin=True)


@crawls.command()
def show(number: Number, api: Api = None, as_json: AsJson = False) -> None:
    """Show a crawl, and what it costs."""
    with connect(api) as client:
        found = client.get(f"{CRAWLS}/{number}", headers=admin_headers())
    print_json(found) if as_json else out.print(_table([found]), _summary(found))


@crawls.command()
def pause(number: Number, api: Api = None, as_json: AsJson = False) -> None:
    """Stop after the last page that was stored."""
    _move("pause", number, api, as_json)


@crawls.command()
def resume(number: Number, api: Api = None, as_json: AsJson = False) -> None:
    """Go on where it was: one that was paused, or that failed."""
    _move("resume", number, api, as_json)


@crawls.command()
def cancel(number: Number, api: Api = None, as_json: AsJson = False) -> None:
    """End it, and its recurrence."""
    _move("cancel", number, api, as_json)


def _move(verb: str, number: int, api: str | None, as_json: bool) -> None:
    with connect(api) as client:
        found = client.post(f"{CRAWLS}/{number}/{verb}", {}, admin_headers())
    print_json(found) if as_json else out.print(_table([found]))


def _source(found: dict[str, Any]) -> str:
    told = [f"{name} {value}" for name, value in found["source"].items() if name != "relations"]
    return " ".join(told) or f"{found['ids']} ids"


def _summary(found: dict[str, Any]) -> str:
    estimate = found["estimate"]
    if estimate is None or not found["queued"]:
        return ""
    size = decimal(estimate["bytes"]) if estimate["bytes"] is not None else "an unknown number of bytes"
    basis = "at the pace of the last jobs" if estimate["measured"] else "at an assumed pace: no job was done here yet"
    verb = "would queue" if found["dry_run"] else "queued"
    hours = f"{estimate['hours']:.2g} hours of {estimate['workers']} worker(s)"
    return f"{verb} {found['queued']} models: {size}, {hours}, {basis}"
