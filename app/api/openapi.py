"""The OpenAPI document: the schema of errors, their headers, and the API keys that each route takes."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.auth.roles import required_role
from app.api.problems import Problem
from catalog.settings import Settings
from catalog.tables import Role

KEY_SCHEMES = ("APIKeyHeader", "HTTPBearer")
_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}}
HEADERS = {
    str(HTTPStatus.UNAUTHORIZED.value): {"WWW-Authenticate": {"schema": {"type": "string"}}},
    str(HTTPStatus.TOO_MANY_REQUESTS.value): _RETRY_AFTER,
    str(HTTPStatus.SERVICE_UNAVAILABLE.value): _RETRY_AFTER,
}


def install(app: FastAPI) -> None:
    """Let the app serve this document."""
    app.openapi = partial(_openapi, app)  # type: ignore[method-assign]


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        definition = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        components = schema.setdefault("components", {}).setdefault("schemas", {})
        components.update(definition.pop("$defs", {}))
        components["Problem"] = definition
        for unused in ("HTTPValidationError", "ValidationError"):
            components.pop(unused, None)
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                operation["security"] = _security(app.state.settings, method.upper(), path, operation["security"])
                for status, headers in HEADERS.items():
                    if status in operation["responses"]:
                        operation["responses"][status]["headers"] = headers
        app.openapi_schema = schema
    return app.openapi_schema


def _security(settings: Settings, method: str, path: str, schemes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The alternatives of a route: a key in one header or the other, each with or without the route's further secrets.
    An empty one means that it needs no key.
    """
    further = [name for scheme in schemes for name in scheme if name not in KEY_SCHEMES]
    role = required_role(method, path)
    if role is None and further:
        return [{name: [] for name in further}]
    with_key: list[dict[str, Any]] = [{name: []} for name in KEY_SCHEMES]
    alternatives = with_key + [{**key, name: []} for name in further for key in with_key]
    is_open = role is None or (role is Role.READER and settings.anonymous_reading)
    return [{}, *alternatives] if is_open else alternatives
