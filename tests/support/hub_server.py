"""Two Hubs for tests, both real servers on the loopback: `hub_server` is olah over bare git repositories and speaks
the whole protocol; `scripted_hub` answers what a test tells it to (429, 5xx, gated, silence), which olah cannot.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import close_session

from tests.support.ports import free_port

START_LIMIT = 60.0  # seconds


class HubRepos:
    """Bare git repositories `root/models/OWNER/NAME`, as olah serves them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def commit(
        self, repo_id: str, files: Mapping[str, bytes | Path | None], message: str = "update", branch: str = "main"
    ) -> str:
        """Write `files` over what the repo's `branch` holds (None takes a file away) and return the commit's sha."""
        repo = self.root / "models" / repo_id
        if not repo.exists():
            self._git("init", "--quiet", "--bare", "--initial-branch=main", str(repo))
        head = self._git("--git-dir", str(repo), "for-each-ref", "--format=%(refname)", f"refs/heads/{branch}").strip()
        stream = [
            f"commit refs/heads/{branch}\ncommitter Test <test@localhost> now\n".encode(),
            _data(message.encode()),
        ]
        if head:
            stream.append(f"from refs/heads/{branch}^0\n".encode())
        for path, content in files.items():
            if content is None:
                stream.append(f"D {path}\n".encode())
            else:
                body = content.read_bytes() if isinstance(content, Path) else content
                stream.append(f"M 100644 inline {path}\n".encode() + _data(body))
        self._git("--git-dir", str(repo), "fast-import", "--quiet", "--date-format=now", stdin=b"".join(stream))
        return self._git("--git-dir", str(repo), "rev-parse", f"refs/heads/{branch}").strip()

    def commit_folder(self, repo_id: str, folder: Path, message: str = "update") -> str:
        """Write every file of `folder` as one commit."""
        files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
        return self.commit(repo_id, files, message)

    @staticmethod
    def _git(*arguments: str, stdin: bytes = b"") -> str:
        done = subprocess.run(["git", *arguments], input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()


def _data(content: bytes) -> bytes:
    return f"data {len(content)}\n".encode() + content + b"\n"


class HubServer(HubRepos):
    """An olah process at `url` over repositories that may change while it runs."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / "mirror")
        self.url = f"http://127.0.0.1:{free_port()}"
        self._folder = root
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        port = self.url.rpartition(":")[2]
        config = self._folder / "olah.toml"
        # offline: a repo that is not in the mirror does not exist, and no upstream is asked about it
        config.write_text(
            f'[basic]\nhost = "127.0.0.1"\nport = {port}\nmirrors-path = ["{self.root}"]\n'
            f'repos-path = "{self._folder / "cache"}"\n[accessibility]\noffline = true\n'
        )
        command = [sys.executable, "-m", "olah.server", "--config", str(config), "--log-path", str(self._folder)]
        with (self._folder / "olah.out").open("wb") as out:
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=out, stderr=out)
        self._wait()

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{self.url}/openapi.json", timeout=5)
                return
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"olah did not start: {(self._folder / 'olah.out').read_text()[-2000:]}")


@dataclass(frozen=True)
class Answer:
    """One scripted answer. `promised` is a Content-Length that differs from what is sent; `silent` never answers while
    the hub runs.

    Of the body, `cut` bytes are sent before the connection is closed, or `stall` before nothing more comes. Without
    `ranges` the whole file is sent whatever part was asked for.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    promised: int | None = None
    silent: bool = False
    cut: int | None = None
    stall: int | None = None
    ranges: bool = True


class ScriptedHub:
    """Answers by the longest scripted prefix of a request's path.

    `requests` holds what was asked, in order, `moments` when (`time.monotonic`), `sent` the bytes of bodies by path.
    `disturb` is called with each request's path and may give an answer in place of the scripted one.
    """

    sha = "5" * 40

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        self.moments: list[float] = []
        self.sent: Counter[str] = Counter()
        self.hang_ups = 0  # so many of the next requests find their connection closed
        self.disturb: Callable[[str], Answer | None] = lambda path: None
        self._answers: dict[str, Answer] = {}
        self._first: dict[str, list[Answer]] = {}
        self._guards: dict[str, tuple[tuple[str, ...], bool]] = {}
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._server = ThreadingHTTPServer((host, 0), self._handler())
        self.url = f"http://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def answer(self, prefix: str, answer: Answer) -> None:
        self._answers[prefix] = answer

    def first(self, prefix: str, *answers: Answer) -> None:
        """Give these answers, each once and in order, before the scripted one."""
        self._first.setdefault(prefix, []).extend(answers)

    def lists(self, repo_id: str, files: Mapping[str, int], **more: object) -> None:
        """Script the listing of a repo: paths with the sizes it claims, and further fields such as `cardData`."""
        self._list(repo_id, [{"rfilename": path, "size": size} for path, size in files.items()], self.sha, more)

    def serves(
        self, repo_id: str, path: str, body: bytes, etag: str | None = None, *, sha: str | None = None, **more: Any
    ) -> None:
        """Script the download of one file; `more` are fields of `Answer`."""
        headers = {"X-Repo-Commit": sha or self.sha, "ETag": f'"{etag or git_hash(body)}"'}
        self.answer(f"/{repo_id}/resolve/{sha or self.sha}/{path}", Answer(200, headers, body, **more))

    def publishes(
        self,
        repo_id: str,
        files: Mapping[str, bytes],
        *,
        sha: str | None = None,
        told: Mapping[str, object] | None = None,
        **more: Any,
    ) -> None:
        """A whole repo as the Hub has it, with sizes and hashes in its listing, and what else is `told` there; `more`
        are fields of `Answer`.
        """
        listed: list[dict[str, object]] = []
        for path, body in files.items():
            entry: dict[str, object] = {"rfilename": path, "size": len(body), "blobId": git_hash(body)}
            etag = git_hash(body)
            if path.endswith(".safetensors"):
                etag = hashlib.sha256(body).hexdigest()
                entry["lfs"] = {"sha256": etag, "size": len(body), "pointerSize": 130}
            listed.append(entry)
            self.serves(repo_id, path, body, etag, sha=sha, **more)
        self._list(repo_id, listed, sha or self.sha, told or {})

    def guards(self, repo_id: str, *tokens: str, gated: bool = False) -> None:
        """Have requests with one of the tokens alone see a repo; a `gated` one's listing is for everybody."""
        self._guards[repo_id] = (tokens, gated)

    def downloads(self, name: str = "") -> list[tuple[str, str, Mapping[str, str]]]:
        """The requests for files whose path ends so."""
        return [each for each in self.requests if "/resolve/" in each[1] and each[1].endswith(name)]

    def stop(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _list(self, repo_id: str, siblings: object, sha: str, more: Mapping[str, object]) -> None:
        info = {"id": repo_id, "sha": sha, "siblings": siblings, "private": False, "gated": False, **more}
        self.answer(f"/api/models/{repo_id}", Answer(body=json.dumps(info).encode()))

    def _refusal(self, path: str, authorization: str) -> Answer | None:
        """What a guarded repo answers to others; like a careless server, it repeats what it was sent."""
        token = authorization.removeprefix("Bearer ")
        for repo_id, (tokens, gated) in self._guards.items():
            is_listing, is_file = path.startswith(f"/api/models/{repo_id}"), path.startswith(f"/{repo_id}/resolve/")
            if token in tokens or not (is_listing or is_file) or (gated and is_listing):
                continue
            status, code = (403, "GatedRepo") if gated else (401, "RepoNotFound")
            return Answer(status, {"X-Error-Code": code, "X-Error-Message": f"not for {token}"}, token.encode())
        return None

    def _find(self, path: str, authorization: str = "") -> Answer:
        if answer := self.disturb(path) or self._refusal(path, authorization):
            return answer
        with self._lock:
            for prefix, answers in self._first.items():
                if path.startswith(prefix) and answers:
                    return answers.pop(0)
        fitting = [prefix for prefix in self._answers if path.startswith(prefix)]
        return self._answers[max(fitting, key=len)] if fitting else Answer(404)

    def _write(self, stream: BufferedIOBase, path: str, body: memoryview, answer: Answer) -> None:
        stop = answer.cut if answer.cut is not None else answer.stall
        body = body[: len(body) if stop is None else stop]
        for start in range(0, len(body), 2**14):
            part = body[start : start + 2**14]
            with self._lock:  # counted first: whoever has read it all may look at once
                self.sent[path] += len(part)
            stream.write(part)
        if answer.stall is not None:
            self._released.wait()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with hub._lock:
                    hub.moments.append(time.monotonic())
                    hub.requests.append((self.command, self.path, dict(self.headers)))
                self._send(hub._find(self.path, self.headers.get("Authorization", "")))

            do_HEAD = do_POST = do_GET

            def _send(self, answer: Answer) -> None:
                self.close_connection = True
                if hub.hang_ups:
                    hub.hang_ups -= 1
                    return
                if answer.silent:
                    hub._released.wait()
                    return
                status, body, headers = part_of(answer, self.headers.get("Range"))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(answer.promised or len(body)))
                self.send_header("Connection", "close")
                self.end_headers()
                if self.command != "HEAD":
                    with contextlib.suppress(OSError):  # a client that has seen enough hangs up
                        hub._write(self.wfile, self.path, body, answer)

            def log_message(self, *_arguments: object) -> None:
                pass

        return Handler


def part_of(answer: Answer, asked: str | None) -> tuple[int, memoryview, dict[str, str]]:
    """Status, body and headers of an answer to a request with this Range header."""
    body, headers = memoryview(answer.body), dict(answer.headers)
    if answer.status != 200 or asked is None or not answer.ranges:
        return answer.status, body, headers
    first, _, last = asked.removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last) + 1 if last else len(body), len(body))
    if start >= len(body):
        return 416, body[:0], {**headers, "Content-Range": f"bytes */{len(body)}"}
    return 206, body[start:end], {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(body)}"}


def git_hash(body: bytes) -> str:
    """What git, and so the Hub, calls a file that is not in LFS."""
    return hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


@pytest.fixture(scope="session")
def hub_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    server = HubServer(tmp_path_factory.mktemp("hub"))
    server.start()
    yield server
    server.stop()
    close_session()


@pytest.fixture
def scripted_hub() -> Iterator[ScriptedHub]:
    hub = ScriptedHub()
    yield hub
    close_session()
    hub.stop()
