"""The consoles, the options and the API client that all commands share."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from app.client import Client
from catalog.settings import settings

out = Console()
notes = Console(stderr=True)  # progress and hints; standard output holds only the result

Api = Annotated[str | None, typer.Option("--api", help="URL of the API. Default: the running `deltadex up`.")]

TeamTag = Annotated[
    list[str] | None, typer.Option(help="Only models with this team tag; repeatable: with all of them.")
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def connect(api: str | None) -> Client:
    url = api or settings().api_url()
    return Client(url, settings().cli_key(url))


def print_json(content: object) -> None:
    typer.echo(json.dumps(content))
