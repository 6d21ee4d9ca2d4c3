"""`deltadex compose EXPRESSION` and `deltadex vectors [show | delete]`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.markup import escape
from rich.table import Table

from app.cli import render
from app.cli.console import Api, AsJson, connect, notes, out, print_json
from app.cli.render import table_of
from app.client import ApiProblem
from catalog.models.repo_ref import RepoRef

vectors = typer.Typer(help="Vectors under names, to be used in expressions.", invoke_without_command=True)


def compose(
    expression: Annotated[
        str, typer.Argument(help='Such as "owner/law + 0.5*math - chat". One that begins with a minus goes after --.')
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="How many neighbours.")] = 10,
    unit: Annotated[bool, typer.Option("--unit", help="Take every term at length 1 instead of as it is.")] = False,
    include_terms: Annotated[bool, typer.Option("--include-terms", help="Also the models that it names.")] = False,
    other: Annotated[str | None, typer.Option("--with", help="A model to hold the sum against.")] = None,
    save: Annotated[str | None, typer.Option(help="Store the sum under this name.")] = None,
    note: Annotated[str | None, typer.Option(help="What to remember of what is stored.")] = None,
    space: Annotated[
        str | None, typer.Option(help="Key or feature of a space; the first that has all terms without.")
    ] = None,
    geometry: Annotated[str | None, typer.Option(help="raw, or one that was fitted; the best without.")] = None,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show the models nearest to a sum of models, clusters and stored vectors."""
    if note is not None and save is None:
        raise typer.BadParameter("--note goes with --save")
    body: dict[str, Any] = {"expression": expression, "unit_terms": unit, "space": space}
    compare = RepoRef(other).repo_id if other is not None else None
    question = body | {"include_terms": include_terms, "compare": compare, "k": k, "geometry": geometry}
    with connect(api) as client, pointing(expression):
        answer = client.post("/v1/search", question)
        if save is not None:
            client.post("/v1/vectors", body | {"name": save, "note": note})
    if as_json:
        print_json(answer)
    else:
        out.print(_terms(answer["terms"]), render.neighbor_list(answer["neighbors"]))
        if answer["residuals"]:
            out.print(_residuals(answer["residuals"]))
        notes.print(f"norm {answer['norm']:.4g}" + (f", stored as {save}" if save else ""))
    if answer["note"]:
        notes.print(answer["note"])


@contextmanager
def pointing(expression: str) -> Iterator[None]:
    """What the API says of a place in the expression stands under a mark at that place."""
    try:
        yield
    except ApiProblem as problem:
        if problem.place is not None:
            notes.print(escape(render.pointed_at(expression, problem.place)), soft_wrap=True, highlight=False)
        raise


@vectors.callback()
def listed(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = 200,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show the stored vectors, the oldest first."""
    if context.invoked_subcommand is not None:
        return
    found: list[dict[str, Any]] = []
    cursor = None
    with connect(api) as client:
        while len(found) < limit:
            page = client.get("/v1/vectors", limit=min(limit - len(found), 200), cursor=cursor)
            found += page["vectors"]
            if (cursor := page["next_cursor"]) is None:
                break
    print_json({"vectors": found}) if as_json else out.print(_stored(found))


@vectors.command()
def show(name: str, api: Api = None, as_json: AsJson = False) -> None:
    """Show a stored vector; with --json its numbers too."""
    with connect(api) as client:
        found = client.get(f"/v1/vectors/{quote(name, safe='')}")
    print_json(found) if as_json else out.print(_stored([found]))


@vectors.command()
def delete(name: str, api: Api = None, as_json: AsJson = False) -> None:
    """Forget a stored vector."""
    with connect(api) as client:
        found = client.delete(f"/v1/vectors/{quote(name, safe='')}")
    print_json(found) if as_json else out.print(f"deleted {found['name']}")


def _terms(found: Iterable[dict[str, Any]]) -> Table:
    table = table_of("weight", "term", "name", "norm")
    for each in found:
        name = "" if each["name"] == each["term"] else escape(each["name"])
        table.add_row(f"{each['weight']:+.4g}", escape(each["term"]), name, f"{each['norm']:.4g}")
    return table


def _residuals(found: Iterable[dict[str, Any]]) -> Table:
    table = table_of("mixture", "cosine to the sum", "residual", "least residual", "at scale")
    for each in found:
        name = f"{each['repo_id']}{' (by its card)' if each['known'] else ''}"
        table.add_row(name, *(f"{each[figure]:.4f}" for figure in ("cosine", "relative", "least", "scale")))
    return table


def _stored(found: Iterable[dict[str, Any]]) -> Table:
    table = table_of("vector", "norm", "feature", "base", "expression", "stored", "note")
    for each in found:
        space = each["space"]
        expression = (
            f"{each['expression']}{' (unit terms)' if each['unit_terms'] else ''}" if each["expression"] else ""
        )
        row = (each["name"], f"{each['norm']:.4g}", space["feature"], space["base_repo"] or "", escape(expression))
        table.add_row(*row, each["created_at"][:10], escape(each["note"] or ""))
    return table
