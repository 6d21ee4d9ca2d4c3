"""Everything that a request may hold has a limit, and what is wrong with one costs little to say."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.api.limits import LARGE, MAX_BODY, SMALL_BODY
from app.api.problems import MAX_FIELDS, MAX_TOLD
from app.main import create_app
from catalog.database import Database
from catalog.settings import settings
from tests.support.problem_documents import documented_problem, openapi

BOUNDED_BY_FORMAT = {"date-time"}  # whose parser refuses what is longer
UNBOUNDED = re.compile(r"[*+]|\{\d+,\}")  # in a pattern
NUMBER = 32  # characters of a number in JSON, and its comma
ESCAPED = 12  # bytes of a character outside of the BMP, as JSON in ASCII has it
DIGITS = "9" * 5_000  # more than Python makes a number of

Node = dict[str, Any]


def resolved(node: Node) -> Node:
    while "$ref" in node:
        node = openapi()["components"]["schemas"][node["$ref"].rsplit("/", 1)[1]]
    return node


def children(node: Node) -> Iterator[tuple[str, Node]]:
    for name in ("anyOf", "oneOf", "allOf"):
        yield from (("", each) for each in node.get(name, ()))
    yield from ((f".{name}", each) for name, each in node.get("properties", {}).items())
    yield from (("[]", each) for each in (node.get("items"), *node.get("prefixItems", ())) if each)
    if isinstance(node.get("additionalProperties"), dict):
        yield ".*", node["additionalProperties"]


def walk(node: Node, place: str) -> Iterator[tuple[str, Node]]:
    """Every schema within one, with where it stands."""
    node = resolved(node)
    yield place, node
    for step, child in children(node):
        yield from walk(child, place + step)


def request_schemas() -> Iterator[tuple[str, Node]]:
    for path, methods in openapi()["paths"].items():
        for method, route in methods.items():
            for each in route.get("parameters", ()):
                yield f"{method} {path} {each['in']} {each['name']}", each["schema"]
            for media in route.get("requestBody", {}).get("content", {}).values():
                yield f"{method} {path} body", media["schema"]


EVERYTHING = [found for place, schema in request_schemas() for found in walk(schema, place)]
BODIES = {
    tuple(place.split(" ")[:2]): resolved(schema) for place, schema in request_schemas() if place.endswith(" body")
}


def is_bounded(node: Node) -> bool:
    """Whether what matches the schema cannot grow without end, its parts apart."""
    if "enum" in node or "const" in node or any(name in node for name in ("anyOf", "oneOf", "allOf")):
        return True
    match node.get("type"):
        case "string":
            pattern = node.get("pattern", "")
            by_pattern = pattern.startswith("^") and pattern.endswith("$") and not UNBOUNDED.search(pattern)
            return "maxLength" in node or by_pattern or node.get("format") in BOUNDED_BY_FORMAT
        case "array":
            return "maxItems" in node
        case "integer":
            return any(name in node for name in ("maximum", "exclusiveMaximum")) and "minimum" in node
        case "object":
            return ("properties" in node and node.get("additionalProperties", False) is False) or (
                "maxProperties" in node and "propertyNames" in node
            )
        case "boolean" | "number" | "null":
            return True
    return False  # a schema without a type takes anything


def test_the_walk_comes_to_parameters_and_into_bodies():
    places = {place for place, _ in EVERYTHING}
    assert {
        "get /v1/models/{owner}/{name} path owner",
        "get /v1/models/{owner}/{name}/neighbors query tag[]",
        "get /v1/jobs/events header last-event-id",
        "post /v1/tasks body.examples[].messages[].content",
        "post /v1/webhooks/hub body.updatedRefs[].ref",
        "post /v1/search body.vector[]",
    } <= places


def test_whatever_a_request_holds_is_bounded():
    assert [place for place, node in EVERYTHING if not is_bounded(node)] == []


@pytest.mark.parametrize(
    "node",
    [
        {"type": "string"},
        {"type": "string", "pattern": "^[a-z]+$"},
        {"type": "string", "pattern": "[a-z]"},
        {"type": "string", "format": "password"},
        {"type": "array", "items": {"type": "null"}},
        {"type": "integer", "minimum": 1},
        {"type": "object"},
        {"type": "object", "additionalProperties": True},
        {"type": "object", "properties": {}, "additionalProperties": {"type": "null"}},
        {},
    ],
    ids=str,
)
def test_a_schema_without_end_is_told(node: Node):
    assert not is_bounded(node)


# the body


@pytest.mark.parametrize("path", sorted(LARGE))
def test_a_path_that_takes_large_bodies_is_one_of_the_api(path: str):
    assert ("post", path) in BODIES


def longest(node: Node) -> float:
    """Bytes of the longest JSON that the schema takes, without fields that are passed over."""
    node = resolved(node)
    parts = [longest(child) for _, child in children(node)]
    match node.get("type"):
        case "string":
            return ESCAPED * node.get("maxLength", 100) + 4
        case "array":
            return node["maxItems"] * (max(parts) + 2) + 4
        case "object":
            return sum(parts) + sum(len(name) + 6 for name in node["properties"])
    return max([NUMBER, *parts])


@pytest.mark.parametrize(("method", "path"), [route for route in BODIES if route[1] not in LARGE])
def test_what_a_route_takes_fits_its_limit(method: str, path: str):
    assert longest(BODIES[method, path]) < SMALL_BODY


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_a_body_over_the_limit_of_its_route_is_refused(counted: tuple[TestClient, list[int]], method: str, path: str):
    api, _ = counted
    content = b" " * ((MAX_BODY if path in LARGE else SMALL_BODY) + 1)
    headers = {"Content-Type": "application/json"}
    response = api.request(method, re.sub(r"\{\w+\}", "1", path), content=content, headers=headers)
    assert (response.status_code, documented_problem(response)["code"]) == (413, "body_too_large")


# bodies of nothing but mistakes


KEY = "a secret of the admins"


class Counted:
    """An API, and how many errors were made of each request that was refused."""

    def __init__(self) -> None:
        self.errors: list[int] = []
        secrets = {"admin_api_key": SecretStr(KEY), "webhook_secret": SecretStr(KEY)}
        self.app = create_app(settings().model_copy(update={"feed_interval": 3600, **secrets}))
        render: Any = self.app.exception_handlers[RequestValidationError]

        def count(request: Request, error: RequestValidationError) -> Any:
            self.errors.append(len(error.errors()))
            return render(request, error)

        self.app.exception_handlers[RequestValidationError] = count


@pytest.fixture(scope="module")
def counted(servers: object) -> Iterator[tuple[TestClient, list[int]]]:
    found = Counted()
    with TestClient(found.app, headers={"X-Admin-Key": KEY, "X-Webhook-Secret": KEY}) as client:
        yield client, found.errors


def filled(start: str, mistake: str, end: str, limit: int) -> str:
    """A body as long as one may be."""
    count = (limit - len(start) - len(end)) // (len(mistake) + 1)
    return start + ",".join([mistake] * count) + end


def lists_of_bodies() -> Iterator[tuple[str, str, str, str]]:
    """(method, path, what stands before the list in a body, and behind it) of each list, also of those within lists."""
    for (method, path), schema in BODIES.items():
        for place, node in walk(schema, ""):
            if node.get("type") != "array":
                continue
            start, end = "{", "}"
            for name, within in re.findall(r"\.(\w+)(\[\])?", place):
                start, end = (start + f'"{name}":[' + "{" * bool(within), "}" * bool(within) + "]" + end)
            yield method, path, start, end


LISTS = list(lists_of_bodies())
IDS = [f"{path} {start}" for _, path, start, _ in LISTS]


def refuse(counted: tuple[TestClient, list[int]], method: str, path: str, body: str) -> dict[str, Any]:
    """The problem that the request is; it was made of few errors."""
    api, errors = counted
    errors.clear()
    response = api.request(
        method, re.sub(r"\{\w+\}", "1", path), content=body, headers={"Content-Type": "application/json"}
    )
    problem = documented_problem(response)
    assert response.status_code == 422
    assert sum(errors) <= 2 * MAX_FIELDS
    assert len(problem.get("errors") or ()) <= MAX_FIELDS
    assert len(response.content) < 2 * MAX_FIELDS * 2 * MAX_TOLD
    return problem


@pytest.mark.exhaustive
@pytest.mark.parametrize(("method", "path", "start", "end"), LISTS, ids=IDS)
def test_a_list_of_nothing_but_mistakes_has_few_errors(
    counted: tuple[TestClient, list[int]], method: str, path: str, start: str, end: str
):
    limit = MAX_BODY if path in LARGE else SMALL_BODY
    body = filled(start, "[]", end, limit)
    assert len(body) > 0.9 * limit
    refuse(counted, method, path, body)


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_a_body_of_unknown_fields_has_few_errors(counted: tuple[TestClient, list[int]], method: str, path: str):
    limit = MAX_BODY if path in LARGE else SMALL_BODY
    body = "{" + ",".join(f'"{number}":0' for number in range(limit // 11)) + "}"
    refuse(counted, method, path, body)


def test_an_unknown_field_with_an_endless_name_is_told_shortly(counted: tuple[TestClient, list[int]]):
    name = "x" * (MAX_BODY - 100)
    problem = refuse(counted, "post", "/v1/search", f'{{"{name}":0}}')
    assert len(problem["errors"][-1]["field"]) == MAX_TOLD


def test_a_query_of_unknown_fields_has_few_errors(counted: tuple[TestClient, list[int]]):
    api, errors = counted
    errors.clear()
    response = api.get("/v1/models", params={f"f{number}": "0" for number in range(5_000)})
    assert documented_problem(response)["code"] == "invalid_input"
    assert sum(errors) <= MAX_FIELDS


def test_examples_over_the_most_are_refused(counted: tuple[TestClient, list[int]]):
    body = filled('{"examples":[', "{}", "]}", MAX_BODY)
    [error] = refuse(counted, "post", "/v1/tasks", body)["errors"]
    assert (error["field"], "at most 200" in error["message"]) == ("body.examples", True)


def test_further_columns_of_examples_are_passed_over(api: TestClient, database: Database):
    rows = [{"instruction": "Ask.", "output": "yes", "id": 7, "text": {"a": ["b"]}}] * 5
    response = api.post("/v1/tasks", json={"examples": rows})
    assert documented_problem(response)["code"] == "space_not_found"  # no base here; the examples are in order


# numbers


INTEGERS = sorted(
    {tuple(re.sub(r"\[\]$", "", place).split(" ")) for place, node in EVERYTHING if node.get("type") == "integer"}
)
IN_ADDRESSES = [each for each in INTEGERS if each[2] in ("path", "query")]
IN_BODIES = [(method, path, place) for method, path, place in (each for each in INTEGERS if len(each) == 3)]


def test_there_are_numbers_in_every_part_of_a_request():
    assert ("get", "/v1/jobs/{job_id}", "path", "job_id") in IN_ADDRESSES
    assert ("get", "/v1/models", "query", "limit") in IN_ADDRESSES
    assert ("post", "/v1/tasks", "body.seed") in IN_BODIES


@pytest.mark.parametrize("text", [DIGITS, f"-{DIGITS}", "\u00b2"])
@pytest.mark.parametrize(("method", "path", "part", "name"), IN_ADDRESSES)
def test_a_number_in_an_address_that_is_none_is_refused(
    counted: tuple[TestClient, list[int]], method: str, path: str, part: str, name: str, text: str
):
    api, _ = counted
    filled_in = re.sub(r"\{(\w+)\}", lambda found: text if found[1] == name and part == "path" else "1", path)
    response = api.request(method, filled_in, params={name: text} if part == "query" else None)
    assert documented_problem(response)["code"] == "invalid_input"


@pytest.mark.parametrize("text", [DIGITS, str(2**70)])
@pytest.mark.parametrize(("method", "path", "place"), IN_BODIES)
def test_a_number_in_a_body_that_is_none_is_refused(
    counted: tuple[TestClient, list[int]], method: str, path: str, place: str, text: str
):
    api, _ = counted
    name = place.removeprefix("body.")
    value = f"[{text}]" if any(found == f"{method} {path} {place}[]" for found, _ in EVERYTHING) else text
    response = api.request(method, path, content=f'{{"{name}": {value}}}', headers={"Content-Type": "application/json"})
    assert documented_problem(response)["code"] == "invalid_input"


@pytest.mark.parametrize("cursor", [b"9" * 140, "\u0663".encode(), b"-1", b"1_0", b" 1", b"9" * 19])
def test_a_cursor_that_holds_no_number_of_ours_is_refused(api: TestClient, cursor: bytes):
    text = base64.urlsafe_b64encode(cursor).decode().rstrip("=")
    assert documented_problem(api.get("/v1/jobs", params={"cursor": text}))["code"] == "invalid_cursor"
