"""`deltadex crawl` and `deltadex crawls [show | pause | resume | cancel]`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from app.cli.console import Api, AsJson, connect, notes, out, print_json
from app.cli.listing import group_with_list
from app.cli.render import error, state, table_of
from app.client import POLL_INTERVAL, Client
from catalog.errors import InvalidInput
from catalog.models.repo_ref import RepoRef

CRAWLS = "/v1/admin/crawls"
CrawlId = Annotated[int, typer.Argument(metavar="ID", help="Id of a crawl.")]


def crawl(
    base: Annotated[str | None, typer.Option(help="Crawl the adapters and full fine-tunes of this base model.")] = None,
    relation: Annotated[list[str] | None, typer.Option(help="With --base: only adapter, or only finetune.")] = None,
    owner: Annotated[str | None, typer.Option(help="Crawl the models of a user or an organization.")] = None,
    tag: Annotated[str | None, typer.Option(help="Crawl the models with this tag.")] = None,
    collection: Annotated[str | None, typer.Option(help="Crawl the models of a collection: OWNER/NAME-ID.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Crawl the repo ids in a file, one per line (# for comments)."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of repos to queue in one run.")] = None,
    min_downloads: Annotated[int | None, typer.Option(min=0, help="Skip repos with fewer downloads per month.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count repos and estimate the cost; queue nothing.")
    ] = False,
    include_removed: Annotated[
        bool, typer.Option("--include-removed", help="Queue models again that an admin removed.")
    ] = False,
    every: Annotated[float | None, typer.Option(help="Start again this many hours after each run.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the crawl ends.")] = True,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Queue the repos in a list of the Hub. Exits with 1 if the crawl fails. Needs the key of an admin."""
    body: dict[str, Any] = {
        "base": base,
        "relations": relation or None,
        "owner": owner,
        "tag": tag,
        "collection": collection,
        "ids": read_ids(file) if file else None,
        "limit": limit,
        "min_downloads": min_downloads,
        "dry_run": dry_run,
        "include_removed": include_removed or None,
        "every_hours": every,
    }
    with connect(api) as client:
        crawl = client.post(CRAWLS, body)
        if wait:
            crawl = watch(client, crawl)
    print_json(crawl) if as_json else out.print(_table([crawl]), _summary(crawl))
    if crawl["state"] in ("failed", "cancelled"):
        raise typer.Exit(1)


def read_ids(file: Path) -> list[str]:
    """Read repo ids from a file. Raises `InvalidRepoId`, and `InvalidInput` if there are none."""
    lines = (line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    if not (repo_ids := [RepoRef(line).repo_id for line in lines if line]):
        raise InvalidInput(f"{file} contains no repo ids.")
    return repo_ids


def watch(client: Client, crawl: dict[str, Any]) -> dict[str, Any]:
    """Wait until a crawl ends, and show its progress."""
    path = f"{CRAWLS}/{crawl['id']}"
    with notes.status("crawl: queued") as status:
        while crawl["state"] in ("queued", "running"):
            time.sleep(POLL_INTERVAL)
            crawl = client.get(path)
            reason = f", waiting: {crawl['error']['code']}" if crawl["error"] else ""
            status.update(f"crawl {crawl['id']}: {crawl['listed']} listed, {crawl['queued']} queued{reason}")
    return client.get(path)


def _table(crawls: Iterable[dict[str, Any]]) -> Table:
    table = table_of(
        "crawl", "source", "state", "pages", "listed", "queued", "unchanged", "skipped", "blocked", "error"
    )
    for crawl in crawls:
        counts = [str(crawl[name]) for name in ("pages", "listed", "queued", "unchanged", "skipped", "blocked")]
        name = f"{crawl['id']}" + (f" run {crawl['run']}" if crawl["every_hours"] else "")
        table.add_row(name, escape(_source(crawl)), state(crawl["state"]), *counts, error(crawl))
    return table


crawls = group_with_list(CRAWLS, _table, help="List crawls of the Hub; show, pause, resume or cancel one.")


@crawls.command()
def show(crawl_id: CrawlId, api: Api = None, as_json: AsJson = False) -> None:
    """Show a crawl and its estimated cost."""
    with connect(api) as client:
        crawl = client.get(f"{CRAWLS}/{crawl_id}")
    print_json(crawl) if as_json else out.print(_table([crawl]), _summary(crawl))


@crawls.command()
def pause(crawl_id: CrawlId, api: Api = None, as_json: AsJson = False) -> None:
    """Pause a crawl after the last stored page."""
    _post("pause", crawl_id, api, as_json)


@crawls.command()
def resume(crawl_id: CrawlId, api: Api = None, as_json: AsJson = False) -> None:
    """Continue a paused or failed crawl where it stopped."""
    _post("resume", crawl_id, api, as_json)


@crawls.command()
def cancel(crawl_id: CrawlId, api: Api = None, as_json: AsJson = False) -> None:
    """Cancel a crawl and its recurrence."""
    _post("cancel", crawl_id, api, as_json)


def _post(action: str, crawl_id: int, api: str | None, as_json: bool) -> None:
    with connect(api) as client:
        crawl = client.post(f"{CRAWLS}/{crawl_id}/{action}", {})
    print_json(crawl) if as_json else out.print(_table([crawl]))


def _source(crawl: dict[str, Any]) -> str:
    source = [f"{name} {value}" for name, value in crawl["source"].items() if name != "relations"]
    return " ".join(source) or f"{crawl['ids']} ids"


def _summary(crawl: dict[str, Any]) -> str:
    estimate = crawl["estimate"]
    if estimate is None or not crawl["queued"]:
        return ""
    size = decimal(estimate["bytes"]) if estimate["bytes"] is not None else "unknown size"
    basis = "at the pace of the last jobs" if estimate["measured"] else "at an assumed pace (no job has finished yet)"
    verb = "would queue" if crawl["dry_run"] else "queued"
    hours = f"{estimate['hours']:.2g} hours of {estimate['workers']} worker(s)"
    gated = f" ({crawl['gated']} of them gated)" if crawl["gated"] else ""
    return f"{verb} {crawl['queued']} models{gated}: {size}, {hours}, {basis}"
