"""`deltadex clusters [list | fit | runs | compare]` and `deltadex cluster ID`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.console import Api, AsJson, admin_headers, connect, notes, out, print_json
from app.cli.render import table_of
from app.client import POLL_INTERVAL, Client

Space = Annotated[str | None, typer.Option(help="Key or feature of a space; the default one without.")]
clusters = typer.Typer(help="Clusters of models, and the runs that find them.", invoke_without_command=True)


@clusters.callback()
def listed(context: typer.Context, space: Space = None, api: Api = None, as_json: AsJson = False) -> None:
    """Show the clusters of a space: their names, sizes and medoids."""
    if context.invoked_subcommand is not None:
        return
    with connect(api) as client:
        found = client.get("/v1/clusters", space=space)
    print_json(found) if as_json else out.print(_overview(found))
    if not as_json:
        notes.print(_summary(found["run"]))


@clusters.command()
def fit(
    algorithm: Annotated[str, typer.Option(help="hdbscan, kmeans or agglomerative.")] = "hdbscan",
    count: Annotated[int | None, typer.Option("--clusters", help="How many; for kmeans and agglomerative.")] = None,
    min_cluster_size: Annotated[int | None, typer.Option(help="The fewest that are a cluster; for hdbscan.")] = None,
    min_samples: Annotated[int | None, typer.Option(help="Neighbours that make a dense place; for hdbscan.")] = None,
    space: Space = None,
    wait: Annotated[bool, typer.Option(help="Wait until it is done or failed.")] = True,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Find the clusters anew. Exits with 1 when that failed. Sends ADMIN_API_KEY where it is set."""
    body: dict[str, Any] = {"algorithm": algorithm, "clusters": count, "min_cluster_size": min_cluster_size}
    with connect(api) as client:
        body |= {"min_samples": min_samples, "space": space}
        run = client.post("/v1/admin/clusters", body, admin_headers())
        if wait:
            run = watch(client, run)
    print_json(run) if as_json else out.print(_runs([run]))
    if run["state"] == "failed":
        raise typer.Exit(1)


def watch(client: Client, run: dict[str, Any]) -> dict[str, Any]:
    """Wait for a run, showing what it is at."""
    with notes.status("clusters: queued") as status:
        while run["state"] in ("queued", "running"):
            time.sleep(POLL_INTERVAL)
            run = client.get(f"/v1/clusters/runs/{run['id']}")
            status.update(f"clusters: {run['stage'] or run['state']}")
    return run


@clusters.command()
def runs(space: Space = None, api: Api = None, as_json: AsJson = False) -> None:
    """Show the runs, the newest first."""
    with connect(api) as client:
        found = client.get("/v1/clusters/runs", space=space)
    print_json(found) if as_json else out.print(_runs(found["runs"]))


@clusters.command()
def compare(run: int, other: int, api: Api = None, as_json: AsJson = False) -> None:
    """Show how alike two runs are."""
    with connect(api) as client:
        found = client.get(f"/v1/clusters/runs/{run}/compare/{other}")
    if as_json:
        print_json(found)
        return
    index = _figure(found["adjusted_rand"])
    out.print(f"adjusted Rand {index} over {found['models']} models; {len(found['kept'])} clusters are in both")


def cluster(
    number: Annotated[int, typer.Argument(metavar="ID", help="A cluster's number.")],
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show a cluster: its closest members, and what sets it apart."""
    with connect(api) as client:
        found = client.get(f"/v1/clusters/{number}")
    print_json(found) if as_json else _show(found)


def _show(found: dict[str, Any]) -> None:
    facts = Table.grid(padding=(0, 2))
    facts.add_row("cluster", f"{found['id']} [bold]{escape(found['name'])}[/]")
    facts.add_row("models", str(found["size"]))
    facts.add_row("medoid", found["medoid"])
    facts.add_row("cohesion", f"{found['cohesion']:.3f}")
    for kind in ("words", "tags", "tokens"):
        terms = [each["term"] for each in found["explanation"][kind]]
        if terms:
            shown = " ".join(repr(term) for term in terms) if kind == "tokens" else " ".join(terms)
            facts.add_row(kind, escape(shown))
    members = table_of("closest", "cosine")
    for each in found["closest"]:
        members.add_row(each["repo_id"], f"{each['similarity']:.4f}{' placed' if each['placed'] else ''}")
    out.print(facts, members)


def _overview(found: dict[str, Any]) -> Table:
    table = table_of("id", "name", "models", "cohesion", "medoid")
    for each in found["clusters"]:
        row = (str(each["id"]), escape(each["name"]), str(each["size"]), f"{each['cohesion']:.3f}", each["medoid"])
        table.add_row(*row)
    return table


def _summary(run: dict[str, Any]) -> str:
    return (
        f"run {run['id']} ({run['algorithm']}): {run['clusters']} clusters of {run['models']} models, "
        f"noise {_figure(run['noise_share'])}, silhouette {_figure(run['silhouette'])}, "
        f"stability {_figure(run['stability'])}"
    )


def _runs(found: Iterable[dict[str, Any]]) -> Table:
    table = table_of("run", "state", "algorithm", "models", "clusters", "noise", "silhouette", "stability", "seconds")
    for run in found:
        state = run["stage"] or run["state"] if run["error"] is None else f"{run['error']['code']}"
        counts = (str(run["models"] or ""), str(run["clusters"] if run["clusters"] is not None else ""))
        figures = [_figure(run[name]) for name in ("noise_share", "silhouette", "stability", "seconds")]
        table.add_row(str(run["id"]) + (" *" if run["current"] else ""), state, run["algorithm"], *counts, *figures)
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
