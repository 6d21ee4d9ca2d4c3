"""Error responses of the API, checked against its OpenAPI description."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from app.api.problems import MEDIA_TYPE
from app.main import create_app
from catalog.settings import Settings


@lru_cache
def openapi() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def problem(response: Any) -> dict[str, Any]:
    """The problem document of an error response, after a check of its required members."""
    assert response.headers["content-type"] == MEDIA_TYPE
    content = response.json()
    assert content["status"] == response.status_code
    assert content["type"] == f"urn:deltadex:problem:{content['code']}"
    assert content["instance"] == response.request.url.path
    assert content["title"]
    assert content["detail"]
    return content


def documented_problem(response: Any) -> dict[str, Any]:
    """Like `problem`; the code must also be documented for the route."""
    content = problem(response)
    route = documented_route(response.request.method, response.request.url.path)
    assert f"`{content['code']}`" in route["responses"][str(response.status_code)]["description"]
    return content


def documented_route(method: str, path: str) -> dict[str, Any]:
    """The operation in the OpenAPI description that a request matches."""
    for template, methods in openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) and method.lower() in methods:
            return methods[method.lower()]
    raise AssertionError(f"{method} {path} is not documented")
