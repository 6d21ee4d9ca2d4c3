"""`deltadex reindex` and `deltadex reindexes [show | cutover | rollback | cancel]`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from app.cli.console import Api, AsJson, connect, notes, out, print_json
from app.cli.listing import group_with_list
from app.cli.render import error, progress_bar, state, table_of
from app.client import POLL_INTERVAL, Client

REINDEXES = "/v1/admin/reindexes"
BAR = 40  # characters of a histogram's longest bar
ReindexId = Annotated[int, typer.Argument(metavar="ID", help="Id of a reindex.")]
Force = Annotated[
    bool,
    typer.Option("--force", help="Go ahead even if artifacts are missing or searches would lose models."),
]


def reindex(
    everything: Annotated[bool, typer.Option("--all", help="Every indexed model.")] = False,
    base: Annotated[str | None, typer.Option(help="The fine-tunes of this base model.")] = None,
    space: Annotated[str | None, typer.Option(help="The models of the space with this key or feature.")] = None,
    in_state: Annotated[
        str | None, typer.Option("--state", help="The models in this state: indexed, no_shift or failed.")
    ] = None,
    outdated: Annotated[
        bool, typer.Option("--outdated", help="The models that have no vector under the workers' current contract.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait until the reindex can cut over.")] = True,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Measure models again, into new spaces. Exits with 1 if the reindex fails. Needs the key of an admin."""
    body = {"all": everything, "base": base, "space": space, "state": in_state, "outdated": outdated}
    with connect(api) as client:
        row = client.post(REINDEXES, body)
        if wait:
            row = watch(client, row["id"])
            _show(client, row, as_json)
        else:
            print_json(row) if as_json else out.print(_table([row]))
    if row["state"] in ("failed", "cancelled", "rolled_back"):
        raise typer.Exit(1)


def watch(client: Client, reindex_id: int) -> dict[str, Any]:
    """Show a progress bar until a reindex is ready or finished."""
    with progress_bar(notes) as bar:
        task = bar.add_task("waiting for a worker", total=None)
        while True:
            row = client.get(f"{REINDEXES}/{reindex_id}")
            finished = sum(row["jobs"][name] for name in ("done", "failed", "cancelled"))
            if row["total"] is not None:
                bar.update(task, total=row["total"], completed=finished, description=_describe_stage(row))
            if row["state"] != "running":
                return row
            time.sleep(POLL_INTERVAL)


def _describe_stage(row: dict[str, Any]) -> str:
    missing = ", ".join(sorted({artifact["kind"] for artifact in row["missing_artifacts"]}))
    return f"{row['stage'] or row['state']}{f' ({missing})' if missing else ''}"


def _table(rows: Iterable[dict[str, Any]]) -> Table:
    table = table_of("reindex", "selection", "state", "models", "jobs", "backfilled", "error")
    for row in rows:
        selection = " ".join(name if value is True else f"{name} {value}" for name, value in row["selection"].items())
        state_and_stage = state(row["state"]) + (f", {row['stage']}" if row["stage"] else "")
        models = "" if row["total"] is None else str(row["total"])
        counts = (models, str(row["queued"]), str(row["backfilled"]))
        table.add_row(str(row["id"]), escape(selection), state_and_stage, *counts, error(row))
    return table


reindexes = group_with_list(REINDEXES, _table, help="List reindexes; show, cut over, roll back or cancel one.")


@reindexes.command()
def show(reindex_id: ReindexId, api: Api = None, as_json: AsJson = False) -> None:
    """Show a reindex: its progress, its failures, and how neighbors change."""
    with connect(api) as client:
        _show(client, client.get(f"{REINDEXES}/{reindex_id}"), as_json)


@reindexes.command()
def cutover(reindex_id: ReindexId, force: Force = False, api: Api = None, as_json: AsJson = False) -> None:
    """Make the new spaces serve in place of the old ones, which are kept."""
    _post("cutover", reindex_id, {"force": force}, api, as_json)


@reindexes.command()
def rollback(reindex_id: ReindexId, force: Force = False, api: Api = None, as_json: AsJson = False) -> None:
    """After the cutover, make the old spaces serve again. Before it, discard the new vectors."""
    _post("rollback", reindex_id, {"force": force}, api, as_json)


@reindexes.command()
def cancel(reindex_id: ReindexId, api: Api = None, as_json: AsJson = False) -> None:
    """Cancel a reindex before its cutover, and discard the new vectors."""
    _post("cancel", reindex_id, {}, api, as_json)


def _post(action: str, reindex_id: int, body: dict[str, Any], api: str | None, as_json: bool) -> None:
    with connect(api) as client, notes.status(f"{action} of reindex {reindex_id}: a large space takes minutes"):
        row = client.post(f"{REINDEXES}/{reindex_id}/{action}", body, patient=True)
    print_json(row) if as_json else out.print(_table([row]))


def _show(client: Client, row: dict[str, Any], as_json: bool) -> None:
    drift = client.get(f"{REINDEXES}/{row['id']}/drift")
    if as_json:
        print_json({**row, "drift": drift})
        return
    out.print(_table([row]))
    if row["failures"]:
        out.print(_failure_table(row["failures"]))
    for pair in drift["spaces"]:
        out.print(_pair_report(pair))
    if row["state"] == "ready":
        out.print(f"Cut over with `deltadex reindexes cutover {row['id']}`, or discard it with `rollback`.")


def _failure_table(failures: Iterable[dict[str, Any]]) -> Table:
    table = table_of("failed with", "jobs", "models")
    for failure in failures:
        names = ", ".join(failure["repo_ids"]) + (", ..." if failure["count"] > len(failure["repo_ids"]) else "")
        table.add_row(failure["code"], str(failure["count"]), escape(names))
    return table


def _pair_report(pair: dict[str, Any]) -> RenderableType:
    """How neighbors change from an old space to its new one: metrics, a histogram, and the models that change most."""
    title = f"[bold]{escape(pair['feature'])}[/] of {escape(pair['base'] or 'any base')}"
    parts: list[RenderableType] = [f"{title}: {(pair['old'] or 'none')[:12]} -> {pair['new'][:12]}"]
    if (lost := pair["lost_models"])["count"]:
        names = ", ".join(lost["repo_ids"])
        parts.append(f"[yellow]{lost['count']} models would be lost[/]: {escape(names)}")
    drift = pair["drift"]
    if drift is None:
        return Group(*parts, "Fewer than three models are in both spaces, too few to compare.")
    metrics = table_of(f"of {drift['models']} models", "mean", "5%", "25%", "50%", "75%", "95%")
    labels = {
        "overlap": f"{drift['k']} nearest that stay",
        "cosine": "cosine of old and new",
        "norm_ratio": "new norm / old norm",
    }
    for name, label in labels.items():
        if (values := drift[name]) is not None:
            metrics.add_row(label, *(f"{value:.3f}" for value in (values["mean"], *values["percentiles"])))
    parts.append(metrics)
    parts.append(f"The nearest neighbor changes for {drift['nearest_changed']:.1%} of the models.")
    parts.append(_histogram(drift["histogram"]))
    if drift["most_changed"]:
        changed = ", ".join(f"{model['repo_id']} ({model['overlap']:.0%} stay)" for model in drift["most_changed"])
        parts.append(f"Changed most: {escape(changed)}")
    return Group(*parts)


def _histogram(counts: list[int]) -> Table:
    table = Table.grid(padding=(0, 1))
    largest, step = max([*counts, 1]), 100 // len(counts)
    for index, count in enumerate(counts):
        table.add_row(f"{index * step}-{(index + 1) * step}% stay", "#" * round(BAR * count / largest), str(count))
    return table
