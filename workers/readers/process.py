"""One reader as its worker sees it: a child process with a deadline and a limit on its memory."""

from __future__ import annotations

import base64
import os
import select
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from catalog.errors import ReaderCrashed, ReaderEnded, ReaderOutOfMemory, ReaderTimedOut, Unavailable
from workers.finetunes.contents import FetchHeader
from workers.process.cancellation import raise_if_cancelled
from workers.readers.messages import Disconnected, InvalidMessage, receive, send
from workers.readers.operations import ERRORS
from workers.readers.template import NotStarted, ReaderTemplate

WATCH_SECONDS = 0.05  # between two looks at a working reader
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
ADVICE = "The same files would end any reader: correct them before you submit them again."


class ReaderProcess:
    """A process that runs one operation at a time. The constructor raises `NotStarted`."""

    def __init__(self, template: ReaderTemplate, seconds: float, memory: int) -> None:
        self._template = template
        self._seconds = seconds
        self._memory = memory
        self.folder_in_use: str | None = None  # whose tokenizer it used last
        try:
            self._scratch = Path(tempfile.mkdtemp(dir=template.scratch))
        except OSError as error:
            raise NotStarted(f"No reader can be started: {error}.") from error
        self.pid, self._connection = template.fork(self._scratch, seconds, memory)
        self._connection.settimeout(WATCH_SECONDS)
        self._status: int | None = None
        self._killing = threading.Lock()
        self._killed = False
        self._baseline = self._resident()

    def run(self, repo: str, operation: str, arguments: dict[str, Any], fetch_header: FetchHeader | None) -> Any:
        """The result of an operation, as JSON.

        Raises the error of the catalog that the operation raised, what `fetch_header` raises, `ReaderEnded`,
        `Cancelled`, and `Unavailable` if another thread kills the process. It has ended after the latter three.
        """
        watch = _Watch(self._seconds, self._resident, self._resident() + self._memory)
        try:
            send(self._connection, {"operation": operation, "arguments": arguments}, watch)
            answer = receive(self._connection, watch)
            while "header" in answer:
                with watch.paused():  # the time of the Hub is not the reader's
                    header, failure = _fetched(fetch_header, answer["header"])
                send(self._connection, header, watch)
                if failure is not None:
                    return _raise(failure)
                answer = receive(self._connection, watch)
        except _TookTooLong:
            message = f"The files of {repo} took longer than {self._seconds:g} s to read. {ADVICE}"
            raise ReaderTimedOut(message, repo) from None
        except _TookTooMuch:
            raise self._out_of_memory(repo) from None
        except (Disconnected, InvalidMessage) as error:
            if self._killed:
                raise Unavailable("The worker is stopping.") from error
            self.kill()
            raise self._crashed(repo, f"exit status {self._status}; {error}".rstrip("; ")) from error
        finally:
            if watch.failed:
                self.kill()
        return self._result(repo, answer)

    def is_bloated(self) -> bool:
        """Whether as much as one request may take stayed in use, so that another process should take its place."""
        return self._resident() - self._baseline > self._memory

    def kill(self) -> None:
        """End the process, and wait until it has."""
        with self._killing:
            if not self._killed:
                self._killed = True
                self._status = self._template.end(self.pid)
                self._connection.close()
                shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def has_ended(self) -> bool:
        """Whether a process without a request has closed its connection, or sent what nobody asked for."""
        return self._killed or bool(select.select([self._connection], [], [], 0)[0])

    def _result(self, repo: str, answer: dict[str, Any]) -> Any:
        if "result" in answer:
            return answer["result"]
        message = str(answer.get("message"))[:2000]
        if (error := ERRORS.get(str(answer.get("error")))) is not None:
            raise error(message)
        self.kill()
        raise (
            self._out_of_memory(repo) if answer.get("ended") == ReaderOutOfMemory.code else self._crashed(repo, message)
        )

    def _out_of_memory(self, repo: str) -> ReaderEnded:
        mebibytes = f"{self._memory / 2**20:,.0f} MiB"
        return ReaderOutOfMemory(f"The files of {repo} took more than {mebibytes} of memory to read. {ADVICE}", repo)

    def _crashed(self, repo: str, reason: str) -> ReaderEnded:
        return ReaderCrashed(f"The process that read the files of {repo} ended: {reason}. {ADVICE}", repo)

    def _resident(self) -> int:
        """Bytes of resident memory without pages of files, as far as the kernel tells."""
        try:
            resident, shared = Path(f"/proc/{self.pid}/statm").read_text().split()[1:3]
        except (OSError, ValueError):  # it has ended, or there is no /proc
            return 0
        return (int(resident) - int(shared)) * PAGE_BYTES


class _TookTooLong(Exception):
    pass


class _TookTooMuch(Exception):
    pass


class _Watch:
    """Looks after a working reader whenever it is called: at the deadline, at `memory()` bytes of `limit`, and at
    whether its work was cancelled. `failed` says whether it raised something.
    """

    def __init__(self, seconds: float, memory: Callable[[], int] = lambda: 0, limit: int = 0) -> None:
        self._deadline = time.monotonic() + seconds
        self._memory = memory
        self._limit = limit
        self.failed = False

    def __call__(self) -> None:
        try:
            raise_if_cancelled()
            if self._memory() > self._limit:
                raise _TookTooMuch
            if time.monotonic() > self._deadline:
                raise _TookTooLong
        except BaseException:
            self.failed = True
            raise

    @contextmanager
    def paused(self) -> Iterator[None]:
        before = time.monotonic()
        yield
        self._deadline += time.monotonic() - before


def _raise(error: BaseException) -> NoReturn:
    raise error


def _fetched(fetch_header: FetchHeader | None, path: Any) -> tuple[dict[str, Any], BaseException | None]:
    """The message with a header, or the one that there is none, and why."""
    try:
        if fetch_header is None or not isinstance(path, str):
            raise InvalidMessage("a header that nobody has")
        header, size = fetch_header(path)
    except BaseException as error:
        return {"unavailable": True}, error
    return {"header": base64.b64encode(header).decode("ascii"), "size": size}, None
