"""Two Hubs for tests, both real servers on the loopback: `hub_server` is olah over bare git repositories and speaks
the whole protocol; `scripted_hub` answers what a test tells it to (429, 5xx, gated, silence), which olah cannot.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from huggingface_hub import close_session

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
    """One scripted answer. `promised` is a Content-Length that differs from what is sent; `silent` never answers."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    promised: int | None = None
    silent: bool = False


class ScriptedHub:
    """Answers by the longest scripted prefix of a request's path; `requests` holds what was asked, in order."""

    sha = "5" * 40

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        self.hang_ups = 0  # so many of the next requests find their connection closed
        self._answers: dict[str, Answer] = {}
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def answer(self, prefix: str, answer: Answer) -> None:
        self._answers[prefix] = answer

    def lists(self, repo_id: str, files: Mapping[str, int], **more: object) -> None:
        """Script the listing of a repo: paths with the sizes it claims, and further fields such as `cardData`."""
        siblings = [{"rfilename": path, "size": size} for path, size in files.items()]
        info = {"id": repo_id, "sha": self.sha, "siblings": siblings, **more}
        self.answer(f"/api/models/{repo_id}", Answer(body=json.dumps(info).encode()))

    def serves(self, repo_id: str, path: str, body: bytes, etag: str = "e" * 40, promised: int | None = None) -> None:
        """Script the download of one file."""
        headers = {"X-Repo-Commit": self.sha, "ETag": f'"{etag}"'}
        self.answer(f"/{repo_id}/resolve/{self.sha}/{path}", Answer(200, headers, body, promised))

    def stop(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _find(self, path: str) -> Answer:
        fitting = [prefix for prefix in self._answers if path.startswith(prefix)]
        return self._answers[max(fitting, key=len)] if fitting else Answer(404)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.requests.append((self.command, self.path, dict(self.headers)))
                self._send(hub._find(self.path))

            do_HEAD = do_POST = do_GET

            def _send(self, answer: Answer) -> None:
                self.close_connection = True
                if hub.hang_ups:
                    hub.hang_ups -= 1
                    return
                if answer.silent:
                    hub._released.wait(START_LIMIT)
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(answer.promised or len(answer.body)))
                self.send_header("Connection", "close")
                self.end_headers()
                if self.command != "HEAD":
                    with contextlib.suppress(OSError):  # a client that refuses the rest hangs up
                        self.wfile.write(answer.body)

            def log_message(self, *_arguments: object) -> None:
                pass

        return Handler


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


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
