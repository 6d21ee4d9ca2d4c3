"""`deltadex task FILE` and `deltadex tasks [show | download | delete]`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from app.cli.archive_download import unpack
from app.cli.console import Api, AsJson, connect, notes, out, print_json
from app.cli.listing import group_with_list
from app.cli.render import error, state, table_of
from app.cli.waiting import wait_for_jobs
from app.client import Client
from catalog.errors import InvalidExamples
from catalog.tasks.examples import read_rows

TASKS = "/v1/tasks"
Number = Annotated[int, typer.Argument(metavar="ID", help="A task's number.")]
Count = Annotated[int, typer.Option("-k", min=1, help="How many models.")]


def task(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help='JSON Lines of {"instruction", "input", "output"} or {"messages"}.'
        ),
    ],
    base: Annotated[str | None, typer.Option(help="On this base alone; on every base in the index without.")] = None,
    name: Annotated[str | None, typer.Option(help="A name by which it can be asked again.")] = None,
    verify: Annotated[int, typer.Option(min=0, max=20, help="Score so many models on examples held back.")] = 0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the examples after the task is done.")] = False,
    keep_adapter: Annotated[
        bool, typer.Option(help="Keep the adapter that is trained on all examples: `deltadex tasks download`.")
    ] = False,
    k: Count = 10,
    wait: Annotated[bool, typer.Option(help="Wait for the answer.")] = True,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show the models that fit some examples. Exits with 1 when that failed."""
    try:
        rows = read_rows(file.read_text(encoding="utf-8").split("\n"))  # not where `splitlines` also sees an end
    except UnicodeDecodeError as error:
        raise InvalidExamples(f"{file} is no text in UTF-8.") from error
    body = {
        "examples": rows,
        "base": base,
        "name": name,
        "verify": verify,
        "seed": seed,
        "keep_examples": keep,
        "keep_adapter": keep_adapter,
    }
    with connect(api) as client:
        found = client.post(TASKS, body)
        if wait:
            found = watch(client, found)
        _answer(client, found, k, as_json)
    if any(run["state"] in ("failed", "cancelled") for run in found["runs"]):
        raise typer.Exit(1)


def watch(client: Client, found: dict[str, Any]) -> dict[str, Any]:
    """Wait for a task's jobs, showing how far they are."""
    wait_for_jobs(client, {run["job"]: run["base"] for run in found["runs"]})
    return client.get(f"{TASKS}/{found['id']}")


def _table(found: Iterable[dict[str, Any]]) -> Table:
    table = table_of("task", "name", "examples", "bases", "state")
    for each in found:
        states = " ".join(state(run["state"]) for run in each["runs"])
        bases = " ".join(run["base"] for run in each["runs"])
        table.add_row(str(each["id"]), each["name"] or "", str(each["examples"]), escape(bases), states)
    return table


tasks = group_with_list(TASKS, _table, help="Tasks that were asked by example.")


@tasks.command()
def show(number: Number, k: Count = 10, api: Api = None, as_json: AsJson = False) -> None:
    """Show a task and its answer."""
    with connect(api) as client:
        _answer(client, client.get(f"{TASKS}/{number}"), k, as_json)


@tasks.command()
def download(
    number: Number,
    to: Annotated[Path, typer.Option(help="A folder that is new or empty.")],
    base: Annotated[str | None, typer.Option(help="The adapter trained on this base.")] = None,
    api: Api = None,
) -> None:
    """Unpack a task's adapter into a folder, where it was asked with --keep-adapter."""
    with connect(api) as client:
        files = unpack(client, f"{TASKS}/{number}/adapter", to, base=base)
    notes.print(f"{len(files)} files in {escape(str(to))}")


@tasks.command()
def delete(number: Number, api: Api = None) -> None:
    """Forget a task, its examples and its vectors."""
    with connect(api) as client:
        client.delete(f"{TASKS}/{number}")


def _answer(client: Client, found: dict[str, Any], k: int, as_json: bool) -> None:
    done = any(run["state"] == "done" for run in found["runs"])
    answer = client.get(f"{TASKS}/{found['id']}/neighbors", k=k) if done else {"bases": []}
    if as_json:
        print_json({"task": found, **answer})
        return
    ranked = {each["base"]: each for each in answer["bases"]}
    for run in found["runs"]:
        out.print(_heading(found, run))
        if run["base"] in ranked:
            out.print(_ranking(ranked[run["base"]], run))


def _heading(found: dict[str, Any], run: dict[str, Any]) -> str:
    took = f" in {run['seconds']:.0f} s" if run["seconds"] is not None else ""
    return f"task {found['id']} on {escape(run['base'])}: {state(run['state'])}{took}{error(run, '  ')}"


def _ranking(found: dict[str, Any], run: dict[str, Any]) -> RenderableType:
    losses = {each["repo_id"]: each for each in run["scores"] or []}
    table = table_of("model", "cosine", "95% between", "first for", *(["loss a token"] if losses else []))
    for each in found["neighbors"]:
        row = [each["repo_id"], f"{each['similarity']:.3f}", f"{each['low']:.2f} {each['high']:.2f}"]
        row.append(f"{each['first']:.0%}" if each["first"] else "")
        if losses:
            scored = losses.get(each["repo_id"])
            row.append("" if scored is None else scored["error"] or f"{scored['loss']:.3f}")
        table.add_row(*row)
    if losses:
        table.add_row("[dim]the base itself[/]", "", "", "", f"{run['base_loss']:.3f}")
    verdict = ["[dim]first for: the share of the halves of the examples to which it is the nearest[/]"]
    if run["borne_out"] is not None:
        borne = "does better" if run["borne_out"] else "does no better"
        verdict.append(f"On {run['held_back']} examples held back the nearest model {borne} than the base.")
    return Group(table, *verdict, *([f"[yellow]{found['note']}[/]"] if found["note"] else []))
