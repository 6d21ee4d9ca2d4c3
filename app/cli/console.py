"""What every command uses: the consoles, the common options and the client."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from app.client import ADMIN_KEY_HEADER, API_KEY_HEADER, Client
from catalog.settings import settings

out = Console()
notes = Console(stderr=True)  # progress and hints; standard output is the answer alone

Api = Annotated[str | None, typer.Option("--api", help="Address of the API; the running `deltadex up` without.")]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def connect(api: str | None) -> Client:
    key = settings().api_key
    return Client(api or settings().api_url(), {API_KEY_HEADER: key.get_secret_value()} if key else None)


def admin_headers() -> dict[str, str]:
    """ADMIN_API_KEY for the routes of administrators, where it is set."""
    key = settings().admin_api_key
    return {ADMIN_KEY_HEADER: key.get_secret_value()} if key else {}


def print_json(content: object) -> None:
    typer.echo(json.dumps(content))
