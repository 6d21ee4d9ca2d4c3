"""A Hub on the loopback that lists repos: `/api/models` with filters, sorting and `Link` headers, and collections."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from huggingface_hub import close_session

from tests.support.hub_server import INVALID_TOKEN


def repo_entry(
    number: int, *, owner: str = "maker", base: str = "pico/llama", commit: int = 0, **more: Any
) -> dict[str, Any]:
    """A repo as the Hub lists it. Repos are created one minute apart; each commit is one hour after the last."""
    return {
        "_id": f"{number:024x}",
        "id": f"{owner}/m{number}",
        "sha": f"{number * 1000 + commit:040x}",
        "createdAt": f"2026-01-{1 + number // 1440 % 28:02}T{number // 60 % 24:02}:{number % 60:02}:00.000Z",
        "lastModified": f"2026-02-01T{commit:02}:00:00.000Z",
        "downloads": number,
        "likes": 1,
        "private": False,
        "tags": [f"base_model:adapter:{base}", "license:mit"],
        "cardData": {"license": "mit", "base_model": base, "datasets": ["a/b"], "language": "en"},
        "usedStorage": 1_000,
        **more,
    }


@dataclass
class HubLists:
    """The server. `repos` are keyed by id, and `requests` counts requests by path and range.

    `refusals` holds the status and headers of the error responses to the next requests. If `valid_tokens` is set,
    other tokens are refused, and without a token private repos are not served.
    """

    repos: dict[str, dict[str, Any]] = field(default_factory=dict)
    collections: dict[str, list[str]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    valid_tokens: set[str] | None = None
    link_base: str | None = None  # the address in links to the next page; None: the server's own

    def __post_init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def add(self, *repos: dict[str, Any]) -> None:
        self.repos |= {repo["id"]: repo for repo in repos}

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, token: str = "") -> tuple[int, dict[str, str], Any]:
        parts = urlsplit(path)
        if token and self.valid_tokens is not None and token not in self.valid_tokens:
            return 401, {"X-Error-Message": INVALID_TOKEN}, {"error": INVALID_TOKEN}
        if self.refusals:
            status, headers = self.refusals.pop(0)
            return status, headers, {"error": "refused"}
        if parts.path == "/api/models":
            return self._list_models(parse_qs(parts.query))
        if parts.path.startswith("/api/collections/"):
            return self._get_collection(parts.path.removeprefix("/api/collections/"))
        repo = self.repos.get(parts.path.removeprefix("/api/models/"))
        if repo and repo["private"] and self.valid_tokens is not None and not token:
            return 401, {"X-Error-Code": "RepoNotFound"}, {"error": "not found"}
        return (200, {}, repo) if repo else (404, {"X-Error-Code": "RepoNotFound"}, {"error": "not found"})

    def _list_models(self, query: dict[str, list[str]]) -> tuple[int, dict[str, str], Any]:
        tags, author = query.get("filter", []), query.get("author", [None])[0]
        repos = [
            repo
            for repo in self.repos.values()
            if set(tags) <= set(repo["tags"]) and author in (None, repo["id"].split("/")[0])
        ]
        repos.sort(key=lambda repo: repo[query["sort"][0]], reverse=True)
        begin, size = int(query.get("cursor", ["0"])[0]), int(query["limit"][0])
        headers = {}
        link_base = self.url if self.link_base is None else self.link_base
        if begin + size < len(repos):
            next_query = urlencode({**query, "cursor": [str(begin + size)]}, doseq=True)
            headers["Link"] = f'<{link_base}/api/models?{next_query}>; rel="next"'
        return 200, headers, repos[begin : begin + size]

    def _get_collection(self, slug: str) -> tuple[int, dict[str, str], Any]:
        if slug not in self.collections:
            return 404, {}, {"error": "not found"}
        items = [
            {"_id": str(position), "id": repo_id, "type": "model", "position": position}
            for position, repo_id in enumerate(self.collections[slug])
        ]
        fields = {"title": slug, "owner": {"name": "x"}, "position": 0, "private": False, "theme": "x", "upvotes": 0}
        return 200, {}, {**fields, "slug": slug, "items": items, "lastUpdated": "2026-01-01T00:00:00.000Z"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                byte_range = self.headers.get("Range", "")
                hub.requests[f"{self.path} {byte_range}".rstrip()] += self.command == "GET"
                status, headers, content = hub.answer(
                    self.path, self.headers.get("Authorization", "").removeprefix("Bearer ")
                )
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                if byte_range and isinstance(content, bytes):
                    first, _, last = byte_range.removeprefix("bytes=").partition("-")
                    body = content[int(first) : int(last) + 1 if last else None]
                    last_byte = int(first) + len(body) - 1
                    content_range = f"bytes {int(first)}-{last_byte}/{len(content)}"
                    status, headers = 206, {**headers, "Content-Range": content_range}
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_arguments: object) -> None:
                pass

        return Handler


@pytest.fixture
def hub_lists() -> Iterator[HubLists]:
    hub = HubLists()
    yield hub
    close_session()
    hub.stop()
