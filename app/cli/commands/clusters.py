"""`deltadex clusters [fit | runs | compare]` and `deltadex cluster ID`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.console import Api, AsJson, connect, notes, out, print_json
from app.cli.listing import DEFAULT_LIMIT, get_pages
from app.cli.render import table_of
from app.client import POLL_INTERVAL, Client

Space = Annotated[str | None, typer.Option(help="Key or feature of a space. Default: the newest suitable space.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number to show.")]
clusters = typer.Typer(help="List clusters; compute and compare cluster runs.", invoke_without_command=True)


@clusters.callback()
def list_(
    context: typer.Context, space: Space = None, limit: Limit = DEFAULT_LIMIT, api: Api = None, as_json: AsJson = False
) -> None:
    """Show the clusters of a space: their names, sizes and medoids."""
    if context.invoked_subcommand is not None:
        return
    with connect(api) as client:
        response = get_pages(client, "/v1/clusters", "clusters", limit, space=space)
    if as_json:
        print_json(response)
        return
    out.print(_cluster_table(response["clusters"]))
    notes.print(_summary(response["run"]))
    if response["has_more"]:
        notes.print(f"There are more clusters: --limit {2 * limit} shows more of them.")


@clusters.command()
def fit(
    algorithm: Annotated[str, typer.Option(help="hdbscan, kmeans or agglomerative.")] = "hdbscan",
    count: Annotated[int | None, typer.Option("--clusters", help="Number of clusters (kmeans, agglomerative).")] = None,
    min_cluster_size: Annotated[int | None, typer.Option(help="Minimal size of a cluster (hdbscan).")] = None,
    min_samples: Annotated[int | None, typer.Option(help="Neighbors of a core point (hdbscan).")] = None,
    space: Space = None,
    wait: Annotated[bool, typer.Option(help="Wait until the run is done or failed.")] = True,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Cluster a space again. Exits with 1 if the run fails. Needs the key of an admin."""
    body: dict[str, Any] = {"algorithm": algorithm, "clusters": count, "min_cluster_size": min_cluster_size}
    with connect(api) as client:
        body |= {"min_samples": min_samples, "space": space}
        run = client.post("/v1/admin/clusters/runs", body)
        if wait:
            run = wait_for_run(client, run)
    print_json(run) if as_json else out.print(_run_table([run]))
    if run["state"] == "failed":
        raise typer.Exit(1)


def wait_for_run(client: Client, run: dict[str, Any]) -> dict[str, Any]:
    """Wait for a run to finish, showing its stage."""
    with notes.status("clusters: queued") as status:
        while run["state"] in ("queued", "running"):
            time.sleep(POLL_INTERVAL)
            run = client.get(f"/v1/clusters/runs/{run['id']}")
            status.update(f"clusters: {run['stage'] or run['state']}")
    return run


@clusters.command()
def runs(space: Space = None, api: Api = None, as_json: AsJson = False) -> None:
    """List the runs, newest first."""
    with connect(api) as client:
        response = client.get("/v1/clusters/runs", space=space)
    print_json(response) if as_json else out.print(_run_table(response["runs"]))


@clusters.command()
def compare(run: int, other: int, api: Api = None, as_json: AsJson = False) -> None:
    """Compare two runs."""
    with connect(api) as client:
        comparison = client.get(f"/v1/clusters/runs/{run}/compare/{other}")
    if as_json:
        print_json(comparison)
        return
    index, shared = _decimal(comparison["adjusted_rand"]), len(comparison["shared_clusters"])
    out.print(f"adjusted Rand {index} over {comparison['models']} models; {shared} shared clusters")


def cluster(
    cluster_id: Annotated[int, typer.Argument(metavar="ID", help="Id of a cluster.")],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show a cluster: its closest members, and the terms that distinguish it."""
    with connect(api) as client:
        detail = client.get(f"/v1/clusters/{cluster_id}")
    print_json(detail) if as_json else _print_cluster(detail)


def _print_cluster(detail: dict[str, Any]) -> None:
    properties = Table.grid(padding=(0, 2))
    properties.add_row("cluster", f"{detail['id']} [bold]{escape(detail['name'])}[/]")
    properties.add_row("models", str(detail["size"]))
    properties.add_row("medoid", detail["medoid"])
    properties.add_row("cohesion", f"{detail['cohesion']:.3f}")
    for kind in ("words", "tags", "tokens"):
        terms = [entry["term"] for entry in detail["explanation"][kind]]
        if terms:
            line = " ".join(repr(term) for term in terms) if kind == "tokens" else " ".join(terms)
            properties.add_row(kind, escape(line))
    members = table_of("closest", "cosine")
    for member in detail["closest"]:
        note = " assigned after the run" if member["assigned_after_run"] else ""
        members.add_row(member["repo_id"], f"{member['similarity']:.4f}{note}")
    out.print(properties, members)


def _cluster_table(clusters: Iterable[dict[str, Any]]) -> Table:
    table = table_of("id", "name", "models", "cohesion", "medoid")
    for row in clusters:
        table.add_row(str(row["id"]), escape(row["name"]), str(row["size"]), f"{row['cohesion']:.3f}", row["medoid"])
    return table


def _summary(run: dict[str, Any]) -> str:
    return (
        f"run {run['id']} ({run['algorithm']}): {run['clusters']} clusters of {run['models']} models, "
        f"noise {_decimal(run['noise_share'])}, silhouette {_decimal(run['silhouette'])}, "
        f"stability {_decimal(run['stability'])}"
    )


def _run_table(runs: Iterable[dict[str, Any]]) -> Table:
    table = table_of("run", "state", "algorithm", "models", "clusters", "noise", "silhouette", "stability", "seconds")
    for run in runs:
        state = run["stage"] or run["state"] if run["error"] is None else f"{run['error']['code']}"
        counts = (str(run["models"] or ""), str(run["clusters"] if run["clusters"] is not None else ""))
        metrics = [_decimal(run[name]) for name in ("noise_share", "silhouette", "stability", "seconds")]
        table.add_row(str(run["id"]) + (" *" if run["current"] else ""), state, run["algorithm"], *counts, *metrics)
    return table


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
