"""Two Hubs for tests, both real servers on the loopback. `hub_server` is olah over bare git repositories and speaks
the whole protocol. `scripted_hub` gives the answers that a test scripts (429, 5xx, gated, none), which olah cannot.
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
INVALID_TOKEN = "Invalid credentials in Authorization header"  # what the Hub answers to an unknown token


class HubRepos:
    """Bare git repositories `root/models/OWNER/NAME`, in the layout that olah serves."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def commit(
        self, repo_id: str, files: Mapping[str, bytes | Path | None], message: str = "update", branch: str = "main"
    ) -> str:
        """Commit `files` on top of `branch` (None deletes a file), and return the sha of the commit."""
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
        """Commit every file of `folder`, and return the sha of the commit."""
        files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
        return self.commit(repo_id, files, message)

    @staticmethod
    def _git(*arguments: str, stdin: bytes = b"") -> str:
        result = subprocess.run(["git", *arguments], input=stdin, capture_output=True, check=False)
        assert result.returncode == 0, result.stderr.decode()
        return result.stdout.decode()


def _data(content: bytes) -> bytes:
    return f"data {len(content)}\n".encode() + content + b"\n"


class HubServer(HubRepos):
    """An olah process at `url`. Its repositories may change while it runs."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / "mirror")
        self.url = f"http://127.0.0.1:{free_port()}"
        self._folder = root
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        port = self.url.rpartition(":")[2]
        config = self._folder / "olah.toml"
        # offline: a repo that is not in the mirror does not exist, and no upstream is requested
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
    """One scripted answer.

    `content_length` replaces the length of the body in the header. With `hangs` no response is sent while the hub runs.
    The connection is closed after `cut_after` bytes of the body, or stays open without further data after
    `stall_after` bytes. Without `supports_ranges` the whole body is sent to every request.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    content_length: int | None = None
    hangs: bool = False
    cut_after: int | None = None
    stall_after: int | None = None
    supports_ranges: bool = True


class ScriptedHub:
    """Gives the answer that is scripted for the longest matching prefix of the request's path.

    If `valid_tokens` is set, every request with another token gets `token_refusal`, also for a public repo.

    `requests` holds the method, path and headers of all requests in order, `request_times` their times
    (`time.monotonic`), and `bytes_sent` the bytes of bodies by path. `intercept` is called with the path of each
    request and may return an answer that replaces the scripted one.
    """

    sha = "5" * 40

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        self.request_times: list[float] = []
        self.bytes_sent: Counter[str] = Counter()
        self.connections_to_drop = 0  # the number of next requests whose connection is closed without an answer
        self.intercept: Callable[[str], Answer | None] = lambda path: None
        self.valid_tokens: set[str] | None = None
        self.token_refusal = Answer(401, {"X-Error-Message": INVALID_TOKEN})
        self._answers: dict[str, Answer] = {}
        self._next_answers: dict[str, list[Answer]] = {}
        self._restrictions: dict[str, tuple[tuple[str, ...], bool]] = {}
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._server = ThreadingHTTPServer((host, 0), self._handler())
        self.url = f"http://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def answer(self, prefix: str, answer: Answer) -> None:
        self._answers[prefix] = answer

    def answer_first(self, prefix: str, *answers: Answer) -> None:
        """Give each of these answers once, in order, before the scripted one."""
        self._next_answers.setdefault(prefix, []).extend(answers)

    def script_listing(self, repo_id: str, files: Mapping[str, int], **fields: object) -> None:
        """Script the listing of a repo: its paths with their declared sizes, and other fields such as `cardData`."""
        siblings = [{"rfilename": path, "size": size} for path, size in files.items()]
        self._script_info(repo_id, siblings, self.sha, fields)

    def serve_file(
        self, repo_id: str, path: str, body: bytes, etag: str | None = None, *, sha: str | None = None, **options: Any
    ) -> None:
        """Script the download of one file; `options` are fields of `Answer`."""
        headers = {"X-Repo-Commit": sha or self.sha, "ETag": f'"{etag or git_hash(body)}"'}
        self.answer(f"/{repo_id}/resolve/{sha or self.sha}/{path}", Answer(200, headers, body, **options))

    def publish(
        self,
        repo_id: str,
        files: Mapping[str, bytes],
        *,
        sha: str | None = None,
        info: Mapping[str, object] | None = None,
        **options: Any,
    ) -> None:
        """Script a whole repo: its files, and its listing with sizes and hashes.

        `info` are further fields of the listing, `options` are fields of `Answer`.
        """
        siblings: list[dict[str, object]] = []
        for path, body in files.items():
            entry: dict[str, object] = {"rfilename": path, "size": len(body), "blobId": git_hash(body)}
            etag = git_hash(body)
            if path.endswith(".safetensors"):
                etag = hashlib.sha256(body).hexdigest()
                entry["lfs"] = {"sha256": etag, "size": len(body), "pointerSize": 130}
            siblings.append(entry)
            self.serve_file(repo_id, path, body, etag, sha=sha, **options)
        self._script_info(repo_id, siblings, sha or self.sha, info or {})

    def restrict(self, repo_id: str, *tokens: str, gated: bool = False) -> None:
        """Let only requests with one of the tokens see a repo. The listing of a `gated` repo is public."""
        self._restrictions[repo_id] = (tokens, gated)

    def download_requests(self, name: str = "") -> list[tuple[str, str, Mapping[str, str]]]:
        """The requests for files whose path ends with `name`."""
        return [request for request in self.requests if "/resolve/" in request[1] and request[1].endswith(name)]

    def stop(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _script_info(self, repo_id: str, siblings: object, sha: str, fields: Mapping[str, object]) -> None:
        info = {"id": repo_id, "sha": sha, "siblings": siblings, "private": False, "gated": False, **fields}
        self.answer(f"/api/models/{repo_id}", Answer(body=json.dumps(info).encode()))

    def _refusal(self, path: str, authorization: str) -> Answer | None:
        """The answer to an invalid token, or of a restricted repo to other tokens. The latter repeats the token, as a
        careless server might.
        """
        token = authorization.removeprefix("Bearer ")
        if token and self.valid_tokens is not None and token not in self.valid_tokens:
            return self.token_refusal
        for repo_id, (tokens, gated) in self._restrictions.items():
            is_listing, is_file = path.startswith(f"/api/models/{repo_id}"), path.startswith(f"/{repo_id}/resolve/")
            if token in tokens or not (is_listing or is_file) or (gated and is_listing):
                continue
            status, code = (403, "GatedRepo") if gated else (401, "RepoNotFound")
            return Answer(status, {"X-Error-Code": code, "X-Error-Message": f"not for {token}"}, token.encode())
        return None

    def _find(self, path: str, authorization: str = "") -> Answer:
        if answer := self.intercept(path) or self._refusal(path, authorization):
            return answer
        with self._lock:
            for prefix, answers in self._next_answers.items():
                if path.startswith(prefix) and answers:
                    return answers.pop(0)
        prefixes = [prefix for prefix in self._answers if path.startswith(prefix)]
        return self._answers[max(prefixes, key=len)] if prefixes else Answer(404)

    def _write(self, stream: BufferedIOBase, path: str, body: memoryview, answer: Answer) -> None:
        end = answer.cut_after if answer.cut_after is not None else answer.stall_after
        body = body[: len(body) if end is None else end]
        for start in range(0, len(body), 2**14):
            chunk = body[start : start + 2**14]
            with self._lock:  # counted before it is sent: a test may read the count as soon as it has the body
                self.bytes_sent[path] += len(chunk)
            stream.write(chunk)
        if answer.stall_after is not None:
            self._released.wait()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with hub._lock:
                    hub.request_times.append(time.monotonic())
                    hub.requests.append((self.command, self.path, dict(self.headers)))
                self._send(hub._find(self.path, self.headers.get("Authorization", "")))

            do_HEAD = do_POST = do_GET

            def _send(self, answer: Answer) -> None:
                self.close_connection = True
                if hub.connections_to_drop:
                    hub.connections_to_drop -= 1
                    return
                if answer.hangs:
                    hub._released.wait()
                    return
                status, body, headers = apply_range(answer, self.headers.get("Range"))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(answer.content_length or len(body)))
                self.send_header("Connection", "close")
                self.end_headers()
                if self.command != "HEAD":
                    with contextlib.suppress(OSError):  # the client may close the connection early
                        hub._write(self.wfile, self.path, body, answer)

            def log_message(self, *_arguments: object) -> None:
                pass

        return Handler


def apply_range(answer: Answer, byte_range: str | None) -> tuple[int, memoryview, dict[str, str]]:
    """The status, body and headers of the response to a request with this Range header."""
    body, headers = memoryview(answer.body), dict(answer.headers)
    if answer.status != 200 or byte_range is None or not answer.supports_ranges:
        return answer.status, body, headers
    first, _, last = byte_range.removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last) + 1 if last else len(body), len(body))
    if start >= len(body):
        return 416, body[:0], {**headers, "Content-Range": f"bytes */{len(body)}"}
    return 206, body[start:end], {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(body)}"}


def git_hash(body: bytes) -> str:
    """The sha1 of a git blob, which the Hub reports for files that are not in LFS."""
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
