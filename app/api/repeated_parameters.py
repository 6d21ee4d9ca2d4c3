"""Refusal of query parameters that are given twice: the framework would take the last value and ignore the others."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError


async def _refuse_repeated(request: Request) -> None:
    counts = Counter(name for name, _ in request.query_params.multi_items())
    if counts.total() == len(counts):
        return
    lists = _list_parameters(request)
    repeated = [name for name, count in counts.items() if count > 1 and name not in lists]
    if repeated:
        message = "This parameter takes one value, and was given several times."
        raise RequestValidationError(
            [{"type": "repeated", "loc": ("query", name), "msg": message} for name in repeated]
        )


def _list_parameters(request: Request) -> set[str]:
    """The query parameters of the route that may be given more than once."""
    operation = request.app.openapi()["paths"][request.scope["route"].path][request.method.lower()]
    return {parameter["name"] for parameter in operation.get("parameters", ()) if _is_list(parameter["schema"])}


def _is_list(schema: dict[str, Any]) -> bool:
    return any(option.get("type") == "array" for option in (schema, *schema.get("anyOf", ())))


no_repeated_parameters = Depends(_refuse_repeated)
