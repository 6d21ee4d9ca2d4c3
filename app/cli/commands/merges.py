"""`deltadex merge A B` and `deltadex merges [show | download | delete]`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from app.cli.archive_download import check_free, unpack
from app.cli.console import Api, AsJson, connect, notes, out, print_json
from app.cli.listing import group_with_list
from app.cli.render import error, state, table_of
from app.cli.waiting import wait_for_jobs
from app.client import Client
from catalog.merges.methods import DEFAULT_METHOD, METHODS

MERGES = "/v1/merges"
Number = Annotated[int, typer.Argument(metavar="ID", help="A merge's number.")]
Count = Annotated[int, typer.Option("-k", min=1, help="How many neighbours.")]
Folder = Annotated[Path, typer.Option(help="A folder that is new or empty.")]


def merge(
    models: Annotated[list[str], typer.Argument(help="Indexed LoRAs of one base.")],
    weights: Annotated[str | None, typer.Option(help="One number a model, as in 1,0.5; all 1 without.")] = None,
    method: Annotated[str, typer.Option(help=f"Of PEFT: {', '.join(METHODS)}.")] = DEFAULT_METHOD,
    density: Annotated[float | None, typer.Option(help="Share that a pruning method keeps.")] = None,
    rank: Annotated[int | None, typer.Option(help="Of the result of an svd method.")] = None,
    seed: Annotated[int | None, typer.Option(help="By which DARE draws.")] = None,
    name: Annotated[str | None, typer.Option(help="A name by which expressions know it.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Tell what it would be, and make nothing.")] = False,
    to: Annotated[Path | None, typer.Option(help="Unpack what is made into this folder, new or empty.")] = None,
    k: Count = 5,
    wait: Annotated[bool, typer.Option(help="Wait until it is made.")] = True,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Make one adapter of several, and hold it against what was predicted. Exits with 1 when that failed."""
    if to is not None and (plan or not wait):
        raise typer.BadParameter("--to waits for what is made, and goes with neither --plan nor --no-wait")
    if to is not None:
        check_free(to)
    settings = {"method": method, "density": density, "rank": rank, "seed": seed}
    body = {"models": models, "weights": numbers(weights), **settings}
    with connect(api) as client:
        if plan:
            found = client.post(f"{MERGES}/plan", body | {"k": k})
            print_json(found) if as_json else _show_plan(found)
            return
        found = client.post(MERGES, body | {"name": name})
        if not as_json:
            _tell(found)
        if wait:
            found = watch(client, found)
        _answer(client, found, k, as_json)
        if to is not None and found["state"] == "done":
            fetch(client, found["id"], to)
    if found["state"] in ("failed", "cancelled"):
        raise typer.Exit(1)


def numbers(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(each) for each in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--weights {text} is no list of numbers such as 1,0.5") from error


def watch(client: Client, found: dict[str, Any]) -> dict[str, Any]:
    """Wait for a merge's job, showing how far it is."""
    wait_for_jobs(client, {found["job"]: "merge"})
    return client.get(f"{MERGES}/{found['id']}")


def fetch(client: Client, number: int, to: Path) -> None:
    files = unpack(client, f"{MERGES}/{number}/adapter", to)
    notes.print(f"{len(files)} files in {escape(str(to))}")


def _table(found: Iterable[dict[str, Any]]) -> Table:
    table = table_of("merge", "name", "method", "parts", "cosine to prediction", "state")
    for each in found:
        parts = " ".join(f"{part['weight']:+g} {part['repo_id']}" for part in each["parts"])
        first = (each["compared"] or [{}])[0].get("cosine")
        cosine = "" if first is None else f"{first:.3f}"
        table.add_row(str(each["id"]), each["name"] or "", each["method"], escape(parts), cosine, state(each["state"]))
    return table


merges = group_with_list(MERGES, _table, help="Merges that were asked for.")


@merges.command()
def show(number: Number, k: Count = 5, api: Api = None, as_json: AsJson = False) -> None:
    """Show a merge, what was predicted of it, and what came out."""
    with connect(api) as client:
        found = client.get(f"{MERGES}/{number}")
        if not as_json:
            _tell(found)
        _answer(client, found, k, as_json)


@merges.command()
def download(number: Number, to: Folder, api: Api = None) -> None:
    """Unpack what was made into a folder."""
    with connect(api) as client:
        fetch(client, number, to)


@merges.command()
def delete(number: Number, api: Api = None) -> None:
    """Forget a merge and what was made."""
    with connect(api) as client:
        client.delete(f"{MERGES}/{number}")


def _show_plan(found: dict[str, Any]) -> None:
    out.print(f"on {escape(found['base'])} by {found['method']}, rank {found['rank'] or 'unknown'}")
    out.print(_parts(found["parts"]))
    _tell(found)
    out.print(_neighbors(found["neighbors"], None))


def _tell(found: dict[str, Any]) -> None:
    for pair in found["pairs"]:
        notes.print(f"{escape(' and '.join(pair['models']))}: cosine {pair['cosine']:.3f}")
    for note in found["notes"]:
        notes.print(f"[yellow]{note['code']}[/]: {escape(note['message'])}")


def _answer(client: Client, found: dict[str, Any], k: int, as_json: bool) -> None:
    near = client.get(f"{MERGES}/{found['id']}/neighbors", k=k)
    if as_json:
        print_json({"merge": found, "neighbors": near})
        return
    took = f" in {sum(found['seconds'].values()):.1f} s" if found["seconds"] else ""
    out.print(f"merge {found['id']} by {found['method']}: {state(found['state'])}{took}{error(found, '  ')}")
    out.print(_parts(found["parts"]))
    for each in found["compared"] or []:
        cosine = "none" if each["cosine"] is None else f"{each['cosine']:.4f}"
        out.print(
            f"{each['feature']}: cosine to the prediction {cosine}, norm {each['norm']:.4g} for "
            f"{each['predicted_norm']:.4g}"
        )
    out.print(_neighbors(near["predicted"], near["made"]))


def _parts(parts: list[dict[str, Any]]) -> RenderableType:
    table = table_of("weight", "part", "licence", "predicted cosine to it", "cosine to it")
    for each in parts:
        cosines = ("" if each[name] is None else f"{each[name]:.3f}" for name in ("predicted_cosine", "cosine"))
        table.add_row(f"{each['weight']:+g}", escape(each["repo_id"]), each["licence"] or "", *cosines)
    return table


def _neighbors(predicted: dict[str, Any], made: dict[str, Any] | None) -> RenderableType:
    """Side by side: nearest to the prediction, nearest to what came out."""
    sides = [("near the prediction", predicted), *([("near what was made", made)] if made else [])]
    table = table_of(*(column for title, _ in sides for column in (title, "cosine")))
    for row in range(max(len(side["neighbors"]) for _, side in sides)):
        cells = []
        for _, side in sides:
            each = side["neighbors"][row] if row < len(side["neighbors"]) else None
            cells += [each["repo_id"], f"{each['similarity']:.3f}"] if each else ["", ""]
        table.add_row(*cells)
    return table
