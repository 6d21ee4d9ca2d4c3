"""`deltadex select TASK` and `deltadex selections [show | delete]`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from app.cli.console import Api, AsJson, connect, out, print_json
from app.cli.listing import group_with_list
from app.cli.render import error, state, table_of
from app.cli.waiting import wait_for_jobs
from app.client import Client
from catalog.arithmetic.expressions import written
from catalog.selections.strategies import Arm

SELECTIONS = "/v1/selections"
Number = Annotated[int, typer.Argument(metavar="ID", help="A selection's number.")]


def select(
    task: Annotated[str, typer.Argument(help="Number or name of a task that was asked with --keep.")],
    count: Annotated[int, typer.Option("-n", min=1, max=10, help="Modules in a set.")] = 5,
    base: Annotated[str | None, typer.Option(help="On this base.")] = None,
    arm: Annotated[list[Arm] | None, typer.Option(help="Ways to choose a set; all of them without.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=10, help="How often each is tried.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    budget: Annotated[int, typer.Option(min=12, max=200, help="Weights that are tried for a set, at most.")] = 40,
    wait: Annotated[bool, typer.Option(help="Wait for the answer.")] = True,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Try sets of modules for a task, and compare them. Exits with 1 when that failed."""
    body = {
        "task": task,
        "base": base,
        "count": count,
        "arms": [str(each) for each in arm] if arm else None,
        "seeds": seeds,
        "seed": seed,
        "budget": budget,
    }
    with connect(api) as client:
        found = client.post(SELECTIONS, body)
        if wait:
            found = watch(client, found)
    _print(found, as_json)
    if found["state"] in ("failed", "cancelled"):
        raise typer.Exit(1)


def watch(client: Client, found: dict[str, Any]) -> dict[str, Any]:
    """Wait for a selection's job, showing how far it is."""
    wait_for_jobs(client, {found["job"]: found["base"]})
    return client.get(f"{SELECTIONS}/{found['id']}")


def _table(found: Iterable[dict[str, Any]]) -> Table:
    table = table_of("selection", "task", "base", "modules", "seeds", "state")
    for each in found:
        row = (str(each["id"]), str(each["task"]), escape(each["base"]), str(each["count"]), str(each["seeds"]))
        table.add_row(*row, state(each["state"]))
    return table


selections = group_with_list(SELECTIONS, _table, help="Sets of modules that were tried for tasks.")


@selections.command()
def show(number: Number, api: Api = None, as_json: AsJson = False) -> None:
    """Show a selection and what came out."""
    with connect(api) as client:
        _print(client.get(f"{SELECTIONS}/{number}"), as_json)


@selections.command()
def delete(number: Number, api: Api = None) -> None:
    """Forget a selection."""
    with connect(api) as client:
        client.delete(f"{SELECTIONS}/{number}")


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    heading = f"selection {found['id']} for task {found['task']} on {found['base']}"
    out.print(f"{escape(heading)}: {state(found['state'])}{error(found, '  ')}")
    if found["figures"]:
        out.print(_compared(found["figures"]))


def _compared(figures: dict[str, Any]) -> RenderableType:
    table = table_of("arm", "loss a token", "95% between", "beside random", "95% between")
    table.add_row("[dim]the base itself[/]", f"{figures['base_loss']:.3f}")
    table.add_row("[dim]the nearest alone[/]", f"{figures['nearest_alone']['held_out_loss']:.3f}")
    for each in figures["arms"]:
        table.add_row(each["arm"], *_mean(each["held_out_loss"], ""), *_mean(each["beside_random"], "+"))
    best = min((one for arm in figures["arms"] for one in arm["sets"]), key=lambda one: one["held_out_loss"])
    told = [
        f"{figures['held_out']} examples held back; {figures['candidates']} candidates, "
        f"{len(figures['left_out'])} of those proposed cannot be had.",
        f"The best set: {escape(_expression(best['modules']))}",
    ]
    return Group(table, *told)


def _mean(mean: dict[str, Any] | None, sign: str) -> tuple[str, str]:
    if mean is None:
        return "", ""
    bounds = "" if mean["low"] is None else f"{mean['low']:{sign}.3f} {mean['high']:{sign}.3f}"
    return f"{mean['mean']:{sign}.3f}", bounds


def _expression(modules: list[dict[str, Any]]) -> str:
    """For `deltadex compose`; models without a weight are left out."""
    some = [each for each in modules if abs(each["weight"]) >= 0.0005]
    terms = [f"{each['weight']:.3g}*{written(None, each['repo_id'])}" for each in some]
    return " + ".join(terms).replace("+ -", "- ") or "the base itself"
