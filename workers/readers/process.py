"""One reader as its worker sees it: a child process with a deadline and a limit on its memory."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import workers
from catalog.errors import ReaderCrashed, ReaderEnded, ReaderOutOfMemory, ReaderTimedOut
from workers.finetunes.contents import FetchHeader
from workers.process.cancellation import raise_if_cancelled
from workers.readers.messages import Disconnected, InvalidMessage, receive, send
from workers.readers.operations import ERRORS

START_SECONDS = 300  # until the libraries are imported
WATCH_SECONDS = 0.05  # between two looks at a working reader
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
ADVICE = "The same files would end any reader: correct them before you submit them again."


class NotStarted(Exception):
    """A reader ended before it was ready, which is no repo's fault."""


class ReaderProcess:
    """A child process that runs one operation at a time. The constructor does not wait until it is ready."""

    def __init__(self, seconds: float, memory: int, command: tuple[str, ...]) -> None:
        self._seconds = seconds
        self._memory = memory
        self._ready = False
        self._baseline = 0
        self.folder_in_use: str | None = None  # whose tokenizer it used last
        # the worker may not run as the owner of these, and a killed process leaves its own
        self._scratch = Path(tempfile.mkdtemp(prefix="deltadex-reader-"))
        self._connection, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(seconds), str(memory)],
                env=environment(self._scratch),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        self._connection.settimeout(WATCH_SECONDS)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Raises `NotStarted`."""
        if self._ready:
            return
        try:
            receive(self._connection, _Watch(START_SECONDS))
        except (Disconnected, InvalidMessage, _TookTooLong) as error:
            self.kill()
            raise NotStarted(f"A reader did not start (exit status {self._process.returncode}).") from error
        self._ready, self._baseline = True, self._resident()

    def run(self, repo: str, operation: str, arguments: dict[str, Any], fetch_header: FetchHeader | None) -> Any:
        """The result of an operation, as JSON.

        Raises the error of the catalog that the operation raised, what `fetch_header` raises, `ReaderEnded`, and
        `Cancelled`. The process has ended after the latter two.
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
            self.kill()
            raise self._crashed(repo, f"exit status {self._process.returncode}; {error}".rstrip("; ")) from error
        finally:
            if watch.failed:
                self.kill()
        return self._result(repo, answer)

    def is_bloated(self) -> bool:
        """Whether more than half of the limit stayed in use, so that another process should take its place."""
        return self._resident() - self._baseline > self._memory / 2

    def kill(self) -> None:
        """End the process, and wait until it has."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

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


def environment(scratch: Path) -> dict[str, str]:
    """The whole environment of a reader: nothing of the worker's own, which holds its secrets."""
    return {
        "PATH": os.defpath,
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(Path(workers.__file__).parents[1]),
        "PYTHONHASHSEED": "0",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MALLOC_ARENA_MAX": "2",
    }


COMMAND = (sys.executable, "-m", "workers.readers")
