"""Every part of a request is bounded, and responses to invalid requests are cheap."""

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

from app.api.limits import LARGE_BODIES, SMALL, BodyLimit, body_limit, check_shape
from app.api.problems import MAX_FIELDS, MAX_TEXT
from app.main import create_app
from catalog.database import Database
from catalog.errors import BodyTooLarge
from catalog.settings import settings
from tests.support.keys import ADMIN_KEY, AS_ADMIN
from tests.support.problem_documents import documented_problem, openapi

BOUNDED_BY_FORMAT = {"date-time"}  # their parsers reject long texts
UNBOUNDED = re.compile(r"[*+]|\{\d+,\}")  # parts of a pattern
NUMBER = 32  # characters of a number in JSON, and its comma
ESCAPED = 12  # bytes of a character outside of the BMP, escaped in ASCII JSON
DIGITS = "9" * 5_000  # more digits than `int` accepts

Node = dict[str, Any]


def resolve(node: Node) -> Node:
    while "$ref" in node:
        node = openapi()["components"]["schemas"][node["$ref"].rsplit("/", 1)[1]]
    return node


def children(node: Node) -> Iterator[tuple[str, Node]]:
    for name in ("anyOf", "oneOf", "allOf"):
        yield from (("", child) for child in node.get(name, ()))
    yield from ((f".{name}", child) for name, child in node.get("properties", {}).items())
    yield from (("[]", child) for child in (node.get("items"), *node.get("prefixItems", ())) if child)
    if isinstance(node.get("additionalProperties"), dict):
        yield ".*", node["additionalProperties"]


def walk(node: Node, location: str) -> Iterator[tuple[str, Node]]:
    """All schemas nested in a schema, with their locations."""
    node = resolve(node)
    yield location, node
    for step, child in children(node):
        yield from walk(child, location + step)


def request_schemas() -> Iterator[tuple[str, Node]]:
    for path, methods in openapi()["paths"].items():
        for method, route in methods.items():
            for parameter in route.get("parameters", ()):
                yield f"{method} {path} {parameter['in']} {parameter['name']}", parameter["schema"]
            for media in route.get("requestBody", {}).get("content", {}).values():
                yield f"{method} {path} body", media["schema"]


SCHEMAS = [nested for location, schema in request_schemas() for nested in walk(schema, location)]
BODIES = {
    tuple(location.split(" ")[:2]): resolve(schema)
    for location, schema in request_schemas()
    if location.endswith(" body")
}


def is_bounded(node: Node) -> bool:
    """Whether the size of matching values is bounded, not counting nested schemas."""
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
    return False  # a schema without a type accepts anything


def test_walk_includes_parameters_and_nested_fields():
    locations = {location for location, _ in SCHEMAS}
    assert {
        "get /v1/models/{owner}/{name} path owner",
        "get /v1/models/{owner}/{name}/neighbors query tag[]",
        "get /v1/jobs/events header last-event-id",
        "post /v1/tasks body.examples[].messages[].content",
        "post /v1/webhooks/hub body.updatedRefs[].ref",
        "post /v1/search body.vector[]",
    } <= locations


def test_every_request_schema_is_bounded():
    assert [location for location, node in SCHEMAS if not is_bounded(node)] == []


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
def test_unbounded_schema_is_detected(node: Node):
    assert not is_bounded(node)


# size of bodies


@pytest.mark.parametrize("path", sorted(LARGE_BODIES))
def test_large_body_route_exists(path: str):
    assert ("post", path) in BODIES


def max_json_size(node: Node) -> float:
    """The maximum size in bytes of JSON that matches the schema, without ignored fields."""
    node = resolve(node)
    parts = [max_json_size(child) for _, child in children(node)]
    match node.get("type"):
        case "string":
            return ESCAPED * node.get("maxLength", 100) + 4
        case "array":
            return node["maxItems"] * (max(parts) + 2) + 4
        case "object":
            return sum(parts) + sum(len(name) + 6 for name in node["properties"])
    return max([NUMBER, *parts])


@pytest.mark.parametrize(("method", "path"), [route for route in BODIES if route[1] not in LARGE_BODIES])
def test_largest_valid_body_fits_the_limit_of_its_route(method: str, path: str):
    assert max_json_size(BODIES[method, path]) < SMALL.size


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_body_over_the_limit_of_its_route_is_rejected(counted: tuple[TestClient, list[int]], method: str, path: str):
    api, _ = counted
    content = b" " * (body_limit(path).size + 1)
    headers = {"Content-Type": "application/json"}
    response = api.request(method, re.sub(r"\{\w+\}", "1", path), content=content, headers=headers)
    assert (response.status_code, documented_problem(response)["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("limit", "body"),
    [
        (BodyLimit(100, 9, 99, 9), "[" + "[]," * 9 + "[]]"),
        (BodyLimit(100, 9, 9, 9), "[" + "0," * 9 + "0]"),
        (BodyLimit(100, 9, 99, 9), "{" * 10),
        (BodyLimit(100, 4, 99, 9), '["","","","",""]'),
        (BodyLimit(100, 2, 2, 9), r'["\\",[],"\""]'),
    ],
    ids=["lists", "numbers", "nested", "strings", "escapes"],
)
def test_body_with_too_many_values_is_rejected_before_it_is_parsed(limit: BodyLimit, body: str):
    with pytest.raises(BodyTooLarge):
        check_shape(body.encode(), limit)


@pytest.mark.parametrize("text", ["[[[{{{,,,", r"\\", r"\"[[[,,,\"", r"\\\"{{{", "\u00e9"])
def test_characters_within_strings_are_no_values(text: str):
    check_shape(f'{{"a":"{text}","b":["{text}"]}}'.encode(), BodyLimit(100, 4, 3, 4))


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_body_of_too_many_values_is_a_problem(counted: tuple[TestClient, list[int]], method: str, path: str):
    api, errors = counted
    errors.clear()
    body = "[" + "[]," * (body_limit(path).values // 2) + "[]]"
    headers = {"Content-Type": "application/json"}
    response = api.request(method, re.sub(r"\{\w+\}", "1", path), content=body, headers=headers)
    assert (response.status_code, documented_problem(response)["code"]) == (413, "body_too_large")
    assert errors == []


# bodies full of errors


class CountingApp:
    """An API, and the number of validation errors of each rejected request."""

    def __init__(self) -> None:
        self.errors: list[int] = []
        secret = {"webhook_secret": SecretStr(ADMIN_KEY)}
        self.app = create_app(settings().model_copy(update={"feed_interval": 3600, **secret}))
        render: Any = self.app.exception_handlers[RequestValidationError]

        def count(request: Request, error: RequestValidationError) -> Any:
            self.errors.append(len(error.errors()))
            return render(request, error)

        self.app.exception_handlers[RequestValidationError] = count


@pytest.fixture(scope="module")
def counted(servers: object) -> Iterator[tuple[TestClient, list[int]]]:
    counting = CountingApp()
    with TestClient(counting.app, "http://localhost", headers={**AS_ADMIN, "X-Webhook-Secret": ADMIN_KEY}) as client:
        yield client, counting.errors


def fill_body(start: str, item: str, end: str, limit: BodyLimit) -> str:
    """A body up to the limit, with as many items as fit."""
    by_size = (limit.size - len(start) - len(end)) // (len(item) + 1)
    structure = item.count("[") + item.count("{")
    by_values = (limit.values - 20) // (1 + structure)
    by_structure = (limit.structure - 20) // structure if structure else by_values
    return start + ",".join([item] * min(by_size, by_values, by_structure)) + end


def list_fields() -> Iterator[tuple[str, str, str, str]]:
    """(method, path, JSON before the list, JSON after it) of each list in a body, nested ones included."""
    for (method, path), schema in BODIES.items():
        for location, node in walk(schema, ""):
            if node.get("type") != "array":
                continue
            start, end = "{", "}"
            for name, nested in re.findall(r"\.(\w+)(\[\])?", location):
                start, end = (start + f'"{name}":[' + "{" * bool(nested), "}" * bool(nested) + "]" + end)
            yield method, path, start, end


LISTS = list(list_fields())
IDS = [f"{path} {start}" for _, path, start, _ in LISTS]


def post_invalid(counted: tuple[TestClient, list[int]], method: str, path: str, body: str) -> dict[str, Any]:
    """Send an invalid request, check that it has few errors, and return its problem document."""
    api, errors = counted
    errors.clear()
    response = api.request(
        method, re.sub(r"\{\w+\}", "1", path), content=body, headers={"Content-Type": "application/json"}
    )
    problem = documented_problem(response)
    assert response.status_code == 422
    assert sum(errors) <= 2 * MAX_FIELDS
    assert len(problem.get("errors") or ()) <= MAX_FIELDS
    assert len(response.content) < 2 * MAX_FIELDS * 2 * MAX_TEXT
    return problem


@pytest.mark.exhaustive
@pytest.mark.parametrize(("method", "path", "start", "end"), LISTS, ids=IDS)
def test_list_of_invalid_items_has_few_errors(
    counted: tuple[TestClient, list[int]], method: str, path: str, start: str, end: str
):
    limit = body_limit(path)
    body = fill_body(start, "[]", end, limit)
    assert body.count("[") + body.count("{") > 0.35 * limit.structure
    post_invalid(counted, method, path, body)


@pytest.mark.parametrize(("method", "path"), BODIES)
def test_body_of_unknown_fields_has_few_errors(counted: tuple[TestClient, list[int]], method: str, path: str):
    limit = body_limit(path)
    count = min(limit.size // 11, limit.strings, limit.values, limit.structure - 1)
    body = "{" + ",".join(f'"{number}":0' for number in range(count)) + "}"
    post_invalid(counted, method, path, body)


def test_long_name_of_an_unknown_field_is_truncated(counted: tuple[TestClient, list[int]]):
    name = "x" * (body_limit("/v1/search").size - 100)
    problem = post_invalid(counted, "post", "/v1/search", f'{{"{name}":0}}')
    assert len(problem["errors"][-1]["field"]) == MAX_TEXT


def test_query_of_unknown_fields_has_few_errors(counted: tuple[TestClient, list[int]]):
    api, errors = counted
    errors.clear()
    response = api.get("/v1/models", params={f"f{number}": "0" for number in range(5_000)})
    assert documented_problem(response)["code"] == "invalid_input"
    assert sum(errors) <= MAX_FIELDS


def test_too_many_examples_are_rejected(counted: tuple[TestClient, list[int]]):
    body = fill_body('{"examples":[', "{}", "]}", body_limit("/v1/tasks"))
    [error] = post_invalid(counted, "post", "/v1/tasks", body)["errors"]
    assert (error["field"], "at most 200" in error["message"]) == ("body.examples", True)


def test_extra_fields_of_examples_are_ignored(api: TestClient, database: Database):
    rows = [{"instruction": "Ask.", "output": "yes", "id": 7, "text": {"a": ["b"]}}] * 5
    response = api.post("/v1/tasks", json={"examples": rows})
    assert documented_problem(response)["code"] == "space_not_found"  # the examples are valid, but there is no base


# numbers


INTEGERS = sorted(
    {tuple(re.sub(r"\[\]$", "", location).split(" ")) for location, node in SCHEMAS if node.get("type") == "integer"}
)
IN_URLS = [integer for integer in INTEGERS if integer[2] in ("path", "query")]
IN_BODIES = [integer for integer in INTEGERS if len(integer) == 3]


def test_integers_are_found_in_paths_queries_and_bodies():
    assert ("get", "/v1/jobs/{job_id}", "path", "job_id") in IN_URLS
    assert ("get", "/v1/models", "query", "limit") in IN_URLS
    assert ("post", "/v1/tasks", "body.seed") in IN_BODIES


@pytest.mark.parametrize("text", [DIGITS, f"-{DIGITS}", "\u00b2"])
@pytest.mark.parametrize(("method", "path", "part", "name"), IN_URLS)
def test_invalid_integer_in_the_url_is_rejected(
    counted: tuple[TestClient, list[int]], method: str, path: str, part: str, name: str, text: str
):
    api, _ = counted
    url = re.sub(r"\{(\w+)\}", lambda match: text if match[1] == name and part == "path" else "1", path)
    response = api.request(method, url, params={name: text} if part == "query" else None)
    assert documented_problem(response)["code"] == "invalid_input"


@pytest.mark.parametrize("text", [DIGITS, str(2**70)])
@pytest.mark.parametrize(("method", "path", "location"), IN_BODIES)
def test_invalid_integer_in_a_body_is_rejected(
    counted: tuple[TestClient, list[int]], method: str, path: str, location: str, text: str
):
    api, _ = counted
    name = location.removeprefix("body.")
    value = f"[{text}]" if any(schema == f"{method} {path} {location}[]" for schema, _ in SCHEMAS) else text
    response = api.request(method, path, content=f'{{"{name}": {value}}}', headers={"Content-Type": "application/json"})
    assert documented_problem(response)["code"] == "invalid_input"


@pytest.mark.parametrize("cursor", [b"9" * 140, "\u0663".encode(), b"-1", b"1_0", b" 1", b"9" * 19])
def test_cursor_without_a_valid_id_is_rejected(api: TestClient, cursor: bytes):
    text = base64.urlsafe_b64encode(cursor).decode().rstrip("=")
    assert documented_problem(api.get("/v1/jobs", params={"cursor": text}))["code"] == "invalid_cursor"
