"""Measure how long the largest bodies that the API accepts, and the worst ones that it refuses, are parsed and checked.

    python -m benchmarks.bodies --json

Both happen in the event loop, where every other request waits for them. Each route with a body gets the largest valid
one that its limits allow, and bodies full of mistakes up to the limits: empty lists, empty objects, numbers, strings,
unknown fields, deep nesting, and a few values more than the limit. `ms` is the best of several CPU times for the count
of values, the parsing, the validation, and the rendering of the errors; nothing is stored, and no server is needed.
"""

from __future__ import annotations

import gc
import json
import random
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic_core import from_json
from rich.console import Console
from rich.table import Table
from starlette.requests import Request

from app.api import problems
from app.api.limits import BodyLimit, VectorRoute, body_limit, check_shape
from app.api.webhooks.routes import MAX_REFS
from app.main import create_app
from catalog.errors import BodyTooLarge
from catalog.settings import Settings

ASKED_MS = 20.0
EXAMPLE = {"instruction": "é" * 1_000, "input": "a" * 1_000, "output": "\\b" * 500}
FLOATS = [random.Random(0).gauss(0, 1) for _ in range(65_536)]
NAMES = [f"some-owner-{number}/some-model-{number}" for number in range(1_000)]
VALID: dict[str, dict[str, Any]] = {
    "/v1/search": {"vector": FLOATS, "base": NAMES, "owner": NAMES, "exclude": NAMES, "tag": NAMES},
    "/v1/search/batch": {"repo_ids": NAMES[:100], "base": NAMES, "owner": NAMES, "exclude": NAMES, "tag": NAMES},
    "/v1/vectors": {"name": "v", "vector": FLOATS},
    "/v1/tasks": {"examples": [EXAMPLE] * 200},
    "/v1/admin/crawls": {"ids": NAMES * 40},
    "/v1/webhooks/hub": {
        "event": {"action": "update", "scope": "repo.content"},
        "repo": {"type": "model", "name": "a/b", "private": False},
        "updatedRefs": [{"ref": f"refs/heads/branch-{number}"} for number in range(MAX_REFS)],
    },
}


def routes(app: FastAPI) -> Iterator[APIRoute]:
    """The routes that read a body."""
    for context in iter_route_contexts(app.router.routes):
        if isinstance(context.original_route, APIRoute) and context.original_route.body_field is not None:
            yield context.original_route


def bodies(path: str, limit: BodyLimit) -> Iterator[tuple[str, bytes]]:
    """The bodies of a route by name, each within its limits but for the last."""
    if path in VALID:
        yield "valid", json.dumps(VALID[path]).encode()
    lists = [name for name, value in VALID.get(path, {}).items() if isinstance(value, list)] or ["unknown"]
    items = {"empty lists": "[]", "empty objects": "{}", "numbers": "1", "nulls": "null", "nested": "[[[[]]]]"}
    for name in lists:
        for kind, item in items.items():
            yield f"{name}: {kind}", _fill(f'{{"{name}":[', item, "]}", limit)
        yield f"{name}: strings", _fill(f'{{"{name}":[', '"a"', "]}", limit)
        yield f"{name}: objects", _fill(f'{{"{name}":[', '{"a":0}', "]}", limit)
    count = min(limit.strings, limit.values, limit.structure - 1, limit.size // 10) - 1
    yield "unknown fields", ("{" + ",".join(f'"{number}":0' for number in range(count)) + "}").encode()
    yield "one long string", b'{"unknown":"' + b"\\u00e9" * (limit.size // 6 - 4) + b'"}'
    yield "a few values too many", _fill('{"unknown":[', "[]", ",[]" * 10 + "]}", limit)
    yield "quotation marks", b'{"' + b'"' * (limit.size - 3)


def _fill(start: str, item: str, end: str, limit: BodyLimit) -> bytes:
    containers = item.count("[") + item.count("{")
    structure = containers + item.count(":")
    count = min(
        (limit.values - 3) // (1 + containers + item.count(",")),
        (limit.structure - 4) // structure if structure else limit.values,
        (limit.size - len(start) - len(end)) // (len(item) + 1),
        (limit.strings - 2) // (item.count('"') // 2) if '"' in item else limit.values,
    )
    return (start + ",".join([item] * count) + end).encode()


def handle(route: APIRoute, path: str, body: bytes) -> str:
    """Do what the API does with a body in the event loop. Returns the outcome."""
    try:
        check_shape(body, body_limit(path))
        value = from_json(body) if isinstance(route, VectorRoute) else json.loads(body)
    except BodyTooLarge as error:
        return error.code
    except ValueError:
        return "no JSON"
    assert route.body_field is not None
    _, errors = route.body_field.validate(value, {}, loc=("body",))
    if not errors:
        return "valid"
    request = Request({"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""})
    problems.render_validation_error(request, RequestValidationError(errors))
    return f"{len(errors)} errors"


def measure(times: int) -> list[dict[str, Any]]:
    rows = []
    for route in routes(create_app(Settings())):
        path = route.path
        gc.collect()
        for name, body in bodies(path, body_limit(path)):
            best, outcome = float("inf"), ""
            for _ in range(times):
                started = time.thread_time()
                outcome = handle(route, path, body)
                best = min(best, time.thread_time() - started)
            rows.append(
                {"path": path, "body": name, "bytes": len(body), "outcome": outcome, "ms": round(1000 * best, 2)}
            )
    return rows


def main(
    times: Annotated[int, typer.Option(min=1, help="Repetitions, of which the best counts.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Measure the worst bodies of each route."""
    rows = measure(times)
    worst = max(rows, key=lambda row: row["ms"])
    report = {"asked_ms": ASKED_MS, "worst_ms": worst["ms"], "worst": worst, "bodies": rows}
    if as_json:
        typer.echo(json.dumps(report))
        return
    table = Table("path", "body", "bytes", "outcome", "ms", title=f"worst {worst['ms']} ms (asked: {ASKED_MS})")
    for row in sorted(rows, key=lambda row: -row["ms"])[:40]:
        table.add_row(row["path"], row["body"], f"{row['bytes']:,}", row["outcome"], f"{row['ms']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
