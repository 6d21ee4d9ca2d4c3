"""Errors as RFC 9457 problem documents, for every route and every kind of failure."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from catalog.errors import (
    AmbiguousTerm,
    CatalogError,
    CrossSite,
    DatabaseBusy,
    DatabaseUnavailable,
    HostNotAllowed,
    InvalidExpression,
    InvalidInput,
    KeyExpired,
    KeyRequired,
    KeyRevoked,
    KeyUnknown,
    MergeNotFinished,
    RateLimited,
    RoleRequired,
    TaskNotFinished,
    TermNotFound,
    TooManyAtOnce,
    Unauthorized,
    Unavailable,
    ZeroVector,
)

MEDIA_TYPE = "application/problem+json"
MAX_FIELDS = 20  # errors listed for one request, which may contain any number of them
MAX_TEXT = 300  # characters of a field's name or message; a name may be as long as the body

# raised when an expression is evaluated
EXPRESSION_ERRORS = (InvalidExpression, TermNotFound, TaskNotFinished, MergeNotFinished, AmbiguousTerm, ZeroVector)

# raised before a route runs
ACCESS_ERRORS = (KeyRequired, KeyUnknown, KeyExpired, KeyRevoked, RoleRequired, HostNotAllowed, CrossSite)

# errors of the framework about the body, by status
_BODY_ERRORS: dict[int, CatalogError] = {
    HTTPStatus.BAD_REQUEST: InvalidInput("The request body is not valid JSON."),
}

log = logging.getLogger(__name__)


class FieldProblem(BaseModel):
    field: str = Field(examples=["body.repo_id"])
    message: str


class Problem(BaseModel):
    """RFC 9457 problem document. `code` is stable and meant for programs; `detail` is meant for users."""

    type: str = Field(examples=["urn:deltadex:problem:model_not_found"])
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldProblem] | None = None
    position: int | None = Field(None, description="Offset in the expression, from 0, in characters.")
    length: int | None = Field(None, description="Length of that part of the expression, in characters.")


def problems(*errors: type[CatalogError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` of a route that may raise these errors, besides the errors that any route may raise."""
    by_status: dict[int, list[type[CatalogError]]] = {}
    common: tuple[type[CatalogError], ...] = (
        InvalidInput, RateLimited, TooManyAtOnce, CatalogError, DatabaseUnavailable, DatabaseBusy, *ACCESS_ERRORS,
    )  # fmt: skip
    for error in (*errors, *common):
        by_status.setdefault(error.status, []).append(error)
    return {
        status: {
            "description": ", ".join(f"`{error.code}`" for error in group),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, group in by_status.items()
    }


def install(app: FastAPI) -> None:
    """Render every error of the app as a problem document."""
    app.add_exception_handler(CatalogError, render_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, render_validation_error)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _http_error)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, _unexpected)


def render_error(request: Request, error: CatalogError) -> JSONResponse:
    """The problem document of an error."""
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthorized) else {}
    if isinstance(error, Unavailable) and error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    members: dict[str, Any] = dict(zip(("position", "length"), error.span, strict=True)) if error.span else {}
    return _render(request, error.status, error.code, error.title, error.message, members, headers)


def render_validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    fields = [
        {"field": ".".join(map(str, problem["loc"]))[:MAX_TEXT], "message": problem["msg"][:MAX_TEXT]}
        for problem in error.errors()[:MAX_FIELDS]
    ]
    detail = "; ".join(f"{field['field']}: {field['message']}" for field in fields)
    return _render(request, InvalidInput.status, InvalidInput.code, InvalidInput.title, detail, {"errors": fields})


def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    if error.status_code in _BODY_ERRORS:
        return render_error(request, _BODY_ERRORS[error.status_code])
    status = HTTPStatus(error.status_code)
    detail = f"{request.method} {request.url.path}: {status.description or status.phrase}."
    headers = dict(error.headers or {})
    if status == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _allowed_methods(request.app, request.url.path)):
        headers["Allow"] = ", ".join(methods)  # the framework names only those of the first route with this path
    return _render(request, status, status.name.lower(), status.phrase, detail, headers=headers)


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    detail = "Internal server error. It has been logged; report it if it persists."
    return _render(request, CatalogError.status, CatalogError.code, CatalogError.title, detail)


def _allowed_methods(app: FastAPI, path: str) -> list[str]:
    """The documented methods of a path. If several templates match it, that with the fewest parameters counts, as it
    does for requests.
    """
    paths = app.openapi()["paths"]
    matching = [template for template in paths if compile_path(template)[0].match(path)]
    template = min(matching, key=lambda template: template.count("{"), default=None)
    return sorted(method.upper() for method in paths[template]) if template is not None else []


def _render(
    request: Request,
    status: int,
    code: str,
    title: str,
    detail: str,
    members: Mapping[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    body = {
        "type": f"urn:deltadex:problem:{code}",
        "title": title,
        "status": int(status),
        "detail": detail,
        "instance": request.url.path,
        "code": code,
        **(members or {}),
    }
    return JSONResponse(body, status, headers, MEDIA_TYPE)
