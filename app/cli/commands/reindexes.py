"""`deltadex reindex` and `deltadex reindexes [list | show | switch | rollback | cancel]`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from app.cli.console import Api, AsJson, admin_headers, connect, notes, out, print_json
from app.cli.listing import group_with_list
from app.cli.render import error, progress_bar, state, table_of
from app.client import POLL_INTERVAL, Client

REINDEXES = "/v1/admin/reindexes"
BAR = 40  # characters of a histogram's longest bar
Number = Annotated[int, typer.Argument(metavar="ID", help="A reindex's number.")]
Force = Annotated[bool, typer.Option("--force", help="Also where something is not built yet, or models would be lost.")]


def reindex(
    everything: Annotated[bool, typer.Option("--all", help="Every model that is indexed.")] = False,
    base: Annotated[str | None, typer.Option(help="The fine-tunes of this base model.")] = None,
    space: Annotated[str | None, typer.Option(help="The models of the space with this key or feature.")] = None,
    in_state: Annotated[str | None, typer.Option("--state", help="Those that are indexed, no_shift or failed.")] = None,
    outdated: Annotated[
        bool, typer.Option("--outdated", help="What was not measured under what the workers measure now.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait until it may be switched to.")] = True,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Measure models anew beside what answers now. Exits with 1 when that failed. Sends ADMIN_API_KEY where set."""
    body = {"all": everything, "base": base, "space": space, "state": in_state, "outdated": outdated}
    with connect(api) as client:
        found = client.post("/v1/admin/reindex", body, admin_headers())
        if wait:
            found = watch(client, found["id"])
            _show(client, found, as_json)
        else:
            print_json(found) if as_json else out.print(_table([found]))
    if found["state"] in ("failed", "cancelled", "rolled_back"):
        raise typer.Exit(1)


def watch(client: Client, number: int) -> dict[str, Any]:
    """Wait until a reindex is ready or over, showing how far it is."""
    with progress_bar(notes) as bar:
        task = bar.add_task("waiting for a worker", total=None)
        while True:
            found = client.get(f"{REINDEXES}/{number}", headers=admin_headers())
            ended = sum(found["jobs"][name] for name in ("done", "failed", "cancelled"))
            if found["total"] is not None:
                bar.update(task, total=found["total"], completed=ended, description=_doing(found))
            if found["state"] != "running":
                return found
            time.sleep(POLL_INTERVAL)


def _table(found: Iterable[dict[str, Any]]) -> Table:
    table = table_of("reindex", "of", "state", "models", "jobs", "carried", "error")
    for each in found:
        selection = " ".join(name if value is True else f"{name} {value}" for name, value in each["selection"].items())
        standing = state(each["state"]) + (f", {each['stage']}" if each["stage"] else "")
        models = "" if each["total"] is None else str(each["total"])
        counts = (models, str(each["queued"]), str(each["carried"]))
        table.add_row(str(each["id"]), escape(selection), standing, *counts, error(each))
    return table


reindexes = group_with_list(REINDEXES, _table, help="Reindexes: the one that runs, and those that ran.", as_admin=True)


@reindexes.command()
def show(number: Number, api: Api = None, as_json: AsJson = False) -> None:
    """Show a reindex: how far it is, what failed, and how neighbours change."""
    with connect(api) as client:
        _show(client, client.get(f"{REINDEXES}/{number}", headers=admin_headers()), as_json)


@reindexes.command()
def switch(number: Number, force: Force = False, api: Api = None, as_json: AsJson = False) -> None:
    """Have the new spaces answer in place of the old ones, which are kept."""
    _move("switch", number, {"force": force}, api, as_json)


@reindexes.command()
def rollback(number: Number, force: Force = False, api: Api = None, as_json: AsJson = False) -> None:
    """After the switch have the old spaces answer again; before it throw away what was measured."""
    _move("rollback", number, {"force": force}, api, as_json)


@reindexes.command()
def cancel(number: Number, api: Api = None, as_json: AsJson = False) -> None:
    """End one before its switch, and throw away what was measured."""
    _move("cancel", number, {}, api, as_json)


def _move(verb: str, number: int, body: dict[str, Any], api: str | None, as_json: bool) -> None:
    with connect(api) as client:
        found = client.post(f"{REINDEXES}/{number}/{verb}", body, admin_headers())
    print_json(found) if as_json else out.print(_table([found]))


def _show(client: Client, found: dict[str, Any], as_json: bool) -> None:
    drift = client.get(f"{REINDEXES}/{found['id']}/drift", headers=admin_headers())
    if as_json:
        print_json({**found, "drift": drift})
        return
    out.print(_table([found]))
    if found["failed"]:
        out.print(_failed(found["failed"]))
    for each in drift["spaces"]:
        out.print(_pair(each))
    if found["state"] == "ready":
        out.print(f"Switch with `deltadex reindexes switch {found['id']}`, or throw it away with `rollback`.")


def _doing(found: dict[str, Any]) -> str:
    left = ", ".join(sorted({each["part"] for each in found["left"]}))
    return f"{found['stage'] or found['state']}{f' ({left})' if left else ''}"


def _failed(found: Iterable[dict[str, Any]]) -> Table:
    table = table_of("failed with", "jobs", "models")
    for each in found:
        names = ", ".join(each["models"]) + (", ..." if each["count"] > len(each["models"]) else "")
        table.add_row(each["code"], str(each["count"]), escape(names))
    return table


def _pair(each: dict[str, Any]) -> RenderableType:
    """How neighbours change in one space: figures, a histogram of the shares that stay, and what moved most."""
    title = f"[bold]{escape(each['feature'])}[/] of {escape(each['base'] or 'any base')}"
    parts: list[RenderableType] = [f"{title}: {(each['old'] or 'none')[:12]} -> {each['new'][:12]}"]
    if each["lost"]["count"]:
        names = ", ".join(each["lost"]["repo_ids"])
        parts.append(f"[yellow]{each['lost']['count']} models would be lost[/]: {escape(names)}")
    drift = each["drift"]
    if drift is None:
        return Group(*parts, "Fewer than three models are in both: nothing to compare.")
    figures = table_of(f"of {drift['models']} models", "mean", "5%", "25%", "50%", "75%", "95%")
    named = {"overlap": f"{drift['k']} nearest that stay", "cosine": "cosine to before", "norm_ratio": "norm by before"}
    for name, words in named.items():
        if (spread := drift[name]) is not None:
            figures.add_row(words, *(f"{value:.3f}" for value in (spread["mean"], *spread["percentiles"])))
    parts.append(figures)
    parts.append(f"The nearest is another one for {drift['nearest_changed']:.1%}.")
    parts.append(_histogram(drift["histogram"]))
    if drift["most"]:
        moved = ", ".join(f"{one['repo_id']} ({one['overlap']:.0%} stay)" for one in drift["most"])
        parts.append(f"Moved most: {escape(moved)}")
    return Group(*parts)


def _histogram(counts: list[int]) -> Table:
    table = Table.grid(padding=(0, 1))
    most, step = max([*counts, 1]), 100 // len(counts)
    for place, count in enumerate(counts):
        table.add_row(f"{place * step}-{(place + 1) * step}% stay", "#" * round(BAR * count / most), str(count))
    return table
