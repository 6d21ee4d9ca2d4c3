"""`deltadex task FILE` and `deltadex tasks [show | download | delete]`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from app.cli.archive_download import download_archive
from app.cli.console import Api, AsJson, connect, notes, out, print_json
from app.cli.listing import group_with_list
from app.cli.render import error, state, table_of
from app.cli.waiting import wait_for_jobs
from app.client import Client
from catalog.errors import InvalidExamples
from catalog.tasks.examples import parse_json_lines

TASKS = "/v1/tasks"
TaskId = Annotated[int, typer.Argument(metavar="ID", help="Id of a task.")]
Count = Annotated[int, typer.Option("-k", min=1, help="Number of models to show.")]


def task(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help='JSON Lines of {"instruction", "input", "output"} or {"messages"}.'
        ),
    ],
    base: Annotated[str | None, typer.Option(help="Base model. Default: every base in the index.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the task in expressions.")] = None,
    verify: Annotated[int, typer.Option(min=0, max=20, help="Number of models to score on a holdout.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the training.")] = 0,
    keep_examples: Annotated[
        bool, typer.Option("--keep-examples", help="Keep the examples after the task's last job.")
    ] = False,
    keep_adapter: Annotated[
        bool,
        typer.Option(
            "--keep-adapter", help="Keep the adapter that is trained on all examples for `deltadex tasks download`."
        ),
    ] = False,
    k: Count = 10,
    wait: Annotated[bool, typer.Option(help="Wait until the task is done.")] = True,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Find the models that fit a task, given by examples. Exits with 1 if a job of the task fails."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # `splitlines` would also split within strings
    except UnicodeDecodeError as error:
        raise InvalidExamples(f"{file} is not UTF-8 text.") from error
    body = {
        "examples": parse_json_lines(lines),
        "base": base,
        "name": name,
        "verify": verify,
        "seed": seed,
        "keep_examples": keep_examples,
        "keep_adapter": keep_adapter,
    }
    with connect(api) as client:
        task = client.post(TASKS, body)
        if wait:
            task = watch(client, task)
        _print(client, task, k, as_json)
    if any(run["state"] in ("failed", "cancelled") for run in task["runs"]):
        raise typer.Exit(1)


def watch(client: Client, task: dict[str, Any]) -> dict[str, Any]:
    """Wait for the jobs of a task and show their progress."""
    wait_for_jobs(client, {run["job"]: run["base"] for run in task["runs"]})
    return client.get(f"{TASKS}/{task['id']}")


def _table(rows: Iterable[dict[str, Any]]) -> Table:
    table = table_of("task", "name", "examples", "bases", "state")
    for row in rows:
        states = " ".join(state(run["state"]) for run in row["runs"])
        bases = " ".join(run["base"] for run in row["runs"])
        table.add_row(str(row["id"]), row["name"] or "", str(row["examples"]), escape(bases), states)
    return table


tasks = group_with_list(TASKS, _table, help="List tasks; show or delete one, or download its adapter.")


@tasks.command()
def show(task_id: TaskId, k: Count = 10, api: Api = None, as_json: AsJson = False) -> None:
    """Show a task and its nearest models."""
    with connect(api) as client:
        _print(client, client.get(f"{TASKS}/{task_id}"), k, as_json)


@tasks.command()
def download(
    task_id: TaskId,
    to: Annotated[Path, typer.Option(help="A folder that is new or empty.")],
    base: Annotated[str | None, typer.Option(help="Base that the adapter was trained on.")] = None,
    api: Api = None,
) -> None:
    """Unpack the adapter of a task that was created with --keep-adapter into a folder."""
    with connect(api) as client:
        files = download_archive(client, f"{TASKS}/{task_id}/adapter", to, base=base)
    notes.print(f"{len(files)} files in {escape(str(to))}")


@tasks.command()
def delete(task_id: TaskId, api: Api = None) -> None:
    """Delete a task, its examples and its vectors."""
    with connect(api) as client:
        client.delete(f"{TASKS}/{task_id}")


def _print(client: Client, task: dict[str, Any], k: int, as_json: bool) -> None:
    done = any(run["state"] == "done" for run in task["runs"])
    answer = client.get(f"{TASKS}/{task['id']}/neighbors", k=k) if done else {"bases": []}
    if as_json:
        print_json({"task": task, **answer})
        return
    rankings = {ranking["base"]: ranking for ranking in answer["bases"]}
    for run in task["runs"]:
        out.print(_heading(task, run))
        if run["base"] in rankings:
            out.print(_ranking(rankings[run["base"]], run))


def _heading(task: dict[str, Any], run: dict[str, Any]) -> str:
    took = f" in {run['seconds']:.0f} s" if run["seconds"] is not None else ""
    return f"task {task['id']} on {escape(run['base'])}: {state(run['state'])}{took}{error(run, '  ')}"


def _ranking(ranking: dict[str, Any], run: dict[str, Any]) -> RenderableType:
    scores = {score["repo_id"]: score for score in run["scores"] or []}
    table = table_of("model", "cosine", "95% interval", "nearest share", *(["loss per token"] if scores else []))
    for neighbor in ranking["neighbors"]:
        row = [neighbor["repo_id"], f"{neighbor['similarity']:.3f}", f"{neighbor['low']:.2f} {neighbor['high']:.2f}"]
        row.append(f"{neighbor['nearest_share']:.0%}" if neighbor["nearest_share"] else "")
        if scores:
            score = scores.get(neighbor["repo_id"])
            row.append("" if score is None else score["error"] or f"{score['loss']:.3f}")
        table.add_row(*row)
    if scores:
        table.add_row("[dim]base model[/]", "", "", "", f"{run['base_loss']:.3f}")
    lines = ["[dim]nearest share: the share of the halves of the examples to which the model is the nearest[/]"]
    if run["nearest_beats_base"] is not None:
        verdict = "does better" if run["nearest_beats_base"] else "does no better"
        lines.append(f"On a holdout of {run['holdout_examples']} examples, the nearest model {verdict} than the base.")
    return Group(table, *lines, *([f"[yellow]{ranking['note']}[/]"] if ranking["note"] else []))
