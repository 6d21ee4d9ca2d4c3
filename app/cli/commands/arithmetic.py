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
from app.cli.listing import group_with_list
from app.cli.render import table_of
from app.client import ApiProblem
from catalog.geometry.transforms import GeometryChoice
from catalog.models.repo_ref import RepoRef


def compose(
    expression: Annotated[
        str,
        typer.Argument(help='Such as "owner/law + 0.5*math - chat". Put -- before an expression that begins with -.'),
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="Number of neighbors to show.")] = 10,
    unit_terms: Annotated[bool, typer.Option("--unit-terms", help="Scale every term to length 1.")] = False,
    include_terms: Annotated[
        bool, typer.Option("--include-terms", help="Allow the models in the expression as neighbors.")
    ] = False,
    compare: Annotated[str | None, typer.Option(help="Repo id of a model to compare the sum with.")] = None,
    save: Annotated[str | None, typer.Option(help="Store the sum under this name.")] = None,
    note: Annotated[str | None, typer.Option(help="A note to store with the sum.")] = None,
    space: Annotated[
        str | None,
        typer.Option(help="Key or feature of a space. Default: the preferred space that has all terms."),
    ] = None,
    geometry: Annotated[
        GeometryChoice, typer.Option(help="Compare in the default geometry of the feature, or raw vectors.")
    ] = GeometryChoice.DEFAULT,
    api: Api = None,
    as_json: AsJson = False,
) -> None:
    """Show the models nearest to a sum of models, clusters, tasks, merges and stored vectors."""
    if note is not None and save is None:
        raise typer.BadParameter("--note requires --save")
    body: dict[str, Any] = {"expression": expression, "unit_terms": unit_terms, "space": space}
    compare_id = RepoRef(compare).repo_id if compare is not None else None
    query = body | {"include_terms": include_terms, "compare": compare_id, "k": k, "geometry": geometry}
    with connect(api) as client, marking_errors(expression):
        answer = client.post("/v1/search", query)
        if save is not None:
            client.post("/v1/vectors", body | {"name": save, "note": note})
    if as_json:
        print_json(answer)
    else:
        out.print(_terms_table(answer["terms"]), render.neighbor_list(answer["neighbors"]))
        if answer["residuals"]:
            out.print(_residuals_table(answer["residuals"]))
        notes.print(f"norm {answer['norm']:.4g}" + (f", stored as {save}" if save else ""))
    if answer["note"]:
        notes.print(answer["note"])


@contextmanager
def marking_errors(expression: str) -> Iterator[None]:
    """Print the expression with a mark under the part that an error of the API is about."""
    try:
        yield
    except ApiProblem as problem:
        if problem.span is not None:
            notes.print(escape(render.underlined(expression, problem.span)), soft_wrap=True, highlight=False)
        raise


def _vectors_table(vectors: Iterable[dict[str, Any]]) -> Table:
    table = table_of("vector", "norm", "feature", "base", "expression", "stored", "note")
    for vector in vectors:
        space = vector["space"]
        unit_terms = " (unit terms)" if vector["unit_terms"] else ""
        expression = f"{vector['expression']}{unit_terms}" if vector["expression"] else ""
        row = (vector["name"], f"{vector['norm']:.4g}", space["feature"], space["base_repo"] or "", escape(expression))
        table.add_row(*row, vector["created_at"][:10], escape(vector["note"] or ""))
    return table


vectors = group_with_list("/v1/vectors", _vectors_table, help="List stored vectors; show or delete one.")


@vectors.command()
def show(name: str, api: Api = None, as_json: AsJson = False) -> None:
    """Show a stored vector; with --json its numbers too."""
    with connect(api) as client:
        vector = client.get(f"/v1/vectors/{quote(name, safe='')}")
    print_json(vector) if as_json else out.print(_vectors_table([vector]))


@vectors.command()
def delete(name: str, api: Api = None, as_json: AsJson = False) -> None:
    """Delete a stored vector."""
    with connect(api) as client:
        vector = client.delete(f"/v1/vectors/{quote(name, safe='')}")
    print_json(vector) if as_json else out.print(f"deleted {vector['name']}")


def _terms_table(terms: Iterable[dict[str, Any]]) -> Table:
    table = table_of("weight", "term", "name", "norm")
    for term in terms:
        name = "" if term["name"] == term["term"] else escape(term["name"])
        table.add_row(f"{term['weight']:+.4g}", escape(term["term"]), name, f"{term['norm']:.4g}")
    return table


def _residuals_table(residuals: Iterable[dict[str, Any]]) -> Table:
    table = table_of("model", "cosine to the sum", "residual", "residual at scale", "scale")
    for residual in residuals:
        name = f"{residual['repo_id']}{' (known mixture)' if residual['known_mixture'] else ''}"
        metrics = (residual[field] for field in ("cosine", "relative", "min_relative", "scale"))
        table.add_row(name, *(f"{metric:.4f}" for metric in metrics))
    return table
