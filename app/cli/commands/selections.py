"""`deltadex select TASK` and `deltadex selections [show | delete]`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from app.cli.console import Api, AsJson, TeamTag, connect, out, print_json
from app.cli.listing import group_with_list
from app.cli.render import error, state, table_of
from app.cli.waiting import wait_for_jobs
from app.client import Client
from catalog.arithmetic.expressions import format_expression
from catalog.selections.strategies import DEFAULT_STRATEGY, Strategy

SELECTIONS = "/v1/selections"
SelectionId = Annotated[int, typer.Argument(metavar="ID", help="Id of a selection.")]


def select(
    task: Annotated[str, typer.Argument(help="Id or name of a task that was created with --keep-examples.")],
    count: Annotated[int, typer.Option("-n", min=1, max=10, help="Number of adapters in a set.")] = 5,
    base: Annotated[
        str | None, typer.Option(help="Base model. Default: the first one on which the task is finished.")
    ] = None,
    strategy: Annotated[
        list[Strategy] | None, typer.Option(help=f"How to select a set; repeatable. Default: {DEFAULT_STRATEGY}.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the examples that weights are chosen by.")] = 0,
    budget: Annotated[
        int, typer.Option(min=12, max=200, help="Maximum number of weightings that are tried for a set.")
    ] = 40,
    team_tag: TeamTag = None,
    wait: Annotated[bool, typer.Option(help="Wait until the selection is done.")] = True,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Select adapters for a task and compose them. Exits with 1 if the job fails."""
    body = {
        "task": task,
        "base": base,
        "count": count,
        "strategies": [str(name) for name in strategy or [DEFAULT_STRATEGY]],
        "seed": seed,
        "budget": budget,
        "team_tags": team_tag,
    }
    with connect(api) as client:
        selection = client.post(SELECTIONS, body)
        if wait:
            selection = watch(client, selection)
    _print(selection, as_json)
    if selection["state"] in ("failed", "cancelled"):
        raise typer.Exit(1)


def watch(client: Client, selection: dict[str, Any]) -> dict[str, Any]:
    """Wait for the job of a selection and show its progress."""
    wait_for_jobs(client, {selection["job"]: selection["base"]})
    return client.get(f"{SELECTIONS}/{selection['id']}")


def _table(rows: Iterable[dict[str, Any]]) -> Table:
    table = table_of("selection", "task", "base", "adapters", "strategies", "state")
    for row in rows:
        cells = (str(row["id"]), str(row["task"]), escape(row["base"]), str(row["count"]), ", ".join(row["strategies"]))
        table.add_row(*cells, state(row["state"]))
    return table


selections = group_with_list(SELECTIONS, _table, help="List selections; show or delete one.")


@selections.command()
def show(selection_id: SelectionId, api: Api = None, as_json: AsJson = False) -> None:
    """Show a selection and its result."""
    with connect(api) as client:
        _print(client.get(f"{SELECTIONS}/{selection_id}"), as_json)


@selections.command()
def delete(selection_id: SelectionId, api: Api = None) -> None:
    """Delete a selection."""
    with connect(api) as client:
        client.delete(f"{SELECTIONS}/{selection_id}")


def _print(selection: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(selection)
        return
    heading = f"selection {selection['id']} for task {selection['task']} on {selection['base']}"
    out.print(f"{escape(heading)}: {state(selection['state'])}{error(selection, '  ')}")
    if selection["metrics"]:
        out.print(_result(selection["metrics"]))


def _result(metrics: dict[str, Any]) -> RenderableType:
    table = table_of("strategy", "loss per token")
    table.add_row("[dim]base model[/]", f"{metrics['base_loss']:.3f}")
    table.add_row("[dim]nearest alone[/]", f"{metrics['nearest_alone']['holdout_loss']:.3f}")
    for result in metrics["strategies"]:
        table.add_row(result["strategy"], f"{result['holdout_loss']:.3f}")
    best = min(metrics["strategies"], key=lambda result: result["holdout_loss"])
    lines = [
        f"{metrics['holdout_examples']} examples in the holdout; {metrics['candidates']} candidates, "
        f"{len(metrics['left_out'])} of the selected ones could not be loaded.",
        f"Composition ({best['strategy']}): {escape(_expression(best['members']))}",
    ]
    return Group(table, *lines)


def _expression(members: list[dict[str, Any]]) -> str:
    """The set as an expression for `deltadex compose`. Members with a weight of about 0 are left out."""
    weighted = [member for member in members if abs(member["weight"]) >= 0.0005]
    terms = [f"{member['weight']:.3g}*{format_expression(None, member['repo_id'])}" for member in weighted]
    return " + ".join(terms).replace("+ -", "- ") or "the base model"
