"""`deltadex merge A B` and `deltadex merges [show | download | delete]`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from app.cli.archive_download import check_empty, download_archive
from app.cli.console import Api, AsJson, connect, notes, out, print_json
from app.cli.listing import group_with_list
from app.cli.render import error, state, table_of
from app.cli.waiting import wait_for_jobs
from app.client import Client
from catalog.merges.methods import DEFAULT_METHOD, METHODS

MERGES = "/v1/merges"
MergeId = Annotated[int, typer.Argument(metavar="ID", help="Id of a merge.")]
Count = Annotated[int, typer.Option("-k", min=1, help="Number of neighbors to show.")]
Folder = Annotated[Path, typer.Option(help="A folder that is new or empty.")]


def merge(
    models: Annotated[list[str], typer.Argument(help="Indexed LoRAs of one base.")],
    weights: Annotated[str | None, typer.Option(help="One per model, such as 1,0.5. Default: 1 for each.")] = None,
    method: Annotated[str, typer.Option(help=f"Method of PEFT: {', '.join(METHODS)}.")] = DEFAULT_METHOD,
    density: Annotated[float | None, typer.Option(help="Share of values that a pruning method keeps.")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the result of an svd method.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed of a DARE method.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the merge in expressions.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the prediction without merging.")] = False,
    to: Annotated[Path | None, typer.Option(help="Unpack the adapter into this folder, which is new or empty.")] = None,
    k: Count = 5,
    wait: Annotated[bool, typer.Option(help="Wait until the merge is done.")] = True,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Merge adapters into one, and compare its vector with the prediction. Exits with 1 if the job fails."""
    if to is not None and (plan or not wait):
        raise typer.BadParameter("--to waits for the merge, so it cannot be combined with --plan or --no-wait")
    if to is not None:
        check_empty(to)
    settings = {"method": method, "density": density, "rank": rank, "seed": seed}
    body = {"models": models, "weights": parse_weights(weights), **settings}
    with connect(api) as client:
        if plan:
            preview = client.post(f"{MERGES}/plan", body | {"k": k})
            print_json(preview) if as_json else _print_plan(preview)
            return
        merge = client.post(MERGES, body | {"name": name})
        if not as_json:
            _print_notes(merge)
        if wait:
            merge = watch(client, merge)
        _print(client, merge, k, as_json)
        if to is not None and merge["state"] == "done":
            _download(client, merge["id"], to)
    if merge["state"] in ("failed", "cancelled"):
        raise typer.Exit(1)


def parse_weights(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(weight) for weight in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--weights {text} is not a list of numbers such as 1,0.5") from error


def watch(client: Client, merge: dict[str, Any]) -> dict[str, Any]:
    """Wait for the job of a merge and show its progress."""
    wait_for_jobs(client, {merge["job"]: "merge"})
    return client.get(f"{MERGES}/{merge['id']}")


def _table(rows: Iterable[dict[str, Any]]) -> Table:
    table = table_of("merge", "name", "method", "parts", "cosine to prediction", "state")
    for row in rows:
        parts = " ".join(f"{part['weight']:+g} {part['repo_id']}" for part in row["parts"])
        value = (row["comparisons"] or [{}])[0].get("cosine")
        cosine = "" if value is None else f"{value:.3f}"
        table.add_row(str(row["id"]), row["name"] or "", row["method"], escape(parts), cosine, state(row["state"]))
    return table


merges = group_with_list(MERGES, _table, help="List merges; show or delete one, or download its adapter.")


@merges.command()
def show(merge_id: MergeId, k: Count = 5, api: Api = None, as_json: AsJson = False) -> None:
    """Show a merge, and how its vector compares with the prediction."""
    with connect(api) as client:
        merge = client.get(f"{MERGES}/{merge_id}")
        if not as_json:
            _print_notes(merge)
        _print(client, merge, k, as_json)


@merges.command()
def download(merge_id: MergeId, to: Folder, api: Api = None) -> None:
    """Unpack the adapter of a merge into a folder."""
    with connect(api) as client:
        _download(client, merge_id, to)


@merges.command()
def delete(merge_id: MergeId, api: Api = None) -> None:
    """Delete a merge and its adapter."""
    with connect(api) as client:
        client.delete(f"{MERGES}/{merge_id}")


def _download(client: Client, merge_id: int, to: Path) -> None:
    files = download_archive(client, f"{MERGES}/{merge_id}/adapter", to)
    notes.print(f"{len(files)} files in {escape(str(to))}")


def _print_plan(plan: dict[str, Any]) -> None:
    out.print(f"on {escape(plan['base'])} by {plan['method']}, rank {plan['rank'] or 'unknown'}")
    out.print(_parts(plan["parts"]))
    _print_notes(plan)
    out.print(_neighbors(plan["neighbors"], None))


def _print_notes(merge: dict[str, Any]) -> None:
    for pair in merge["pairs"]:
        notes.print(f"{escape(' and '.join(pair['models']))}: cosine {pair['cosine']:.3f}")
    for note in merge["notes"]:
        notes.print(f"[yellow]{note['code']}[/]: {escape(note['message'])}")


def _print(client: Client, merge: dict[str, Any], k: int, as_json: bool) -> None:
    neighbors = client.get(f"{MERGES}/{merge['id']}/neighbors", k=k)
    if as_json:
        print_json({"merge": merge, "neighbors": neighbors})
        return
    took = f" in {sum(merge['seconds'].values()):.1f} s" if merge["seconds"] else ""
    out.print(f"merge {merge['id']} by {merge['method']}: {state(merge['state'])}{took}{error(merge, '  ')}")
    out.print(_parts(merge["parts"]))
    for comparison in merge["comparisons"] or []:
        cosine = "none" if comparison["cosine"] is None else f"{comparison['cosine']:.4f}"
        out.print(
            f"{comparison['feature']}: cosine to the prediction {cosine}, norm {comparison['norm']:.4g} "
            f"(predicted {comparison['predicted_norm']:.4g})"
        )
    out.print(_neighbors(neighbors["predicted"], neighbors["measured"]))


def _parts(parts: list[dict[str, Any]]) -> RenderableType:
    table = table_of("weight", "part", "license", "predicted cosine", "cosine")
    for part in parts:
        cosines = ("" if part[name] is None else f"{part[name]:.3f}" for name in ("predicted_cosine", "cosine"))
        table.add_row(f"{part['weight']:+g}", escape(part["repo_id"]), part["license"] or "", *cosines)
    return table


def _neighbors(predicted: dict[str, Any], measured: dict[str, Any] | None) -> RenderableType:
    """The models nearest to the prediction and to the measured vector, side by side."""
    answers = {"near the prediction": predicted} | ({"near the merge": measured} if measured else {})
    table = table_of(*(column for title in answers for column in (title, "cosine")))
    for row in zip_longest(*(answer["neighbors"] for answer in answers.values())):
        cells = [(model["repo_id"], f"{model['similarity']:.3f}") if model else ("", "") for model in row]
        table.add_row(*chain.from_iterable(cells))
    return table
