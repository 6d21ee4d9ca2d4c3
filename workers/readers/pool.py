"""A pool of warm readers: the `Readers` of a worker."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from catalog.errors import FolderUnreadable, ReaderCrashed, Refused, Unavailable
from workers.encoding.resident_base import BaseFiles
from workers.finetunes.contents import FetchHeader, RawHeader
from workers.finetunes.finetune import FineTune
from workers.finetunes.reading import build_finetune, choose_checked
from workers.finetunes.repo_files import Choice
from workers.finetunes.shape_fit import Shape
from workers.process.cancellation import raise_if_cancelled
from workers.readers.messages import (
    InvalidMessage,
    contents_from_json,
    object_from_json,
    shapes_from_json,
    texts_from_json,
    token_rows_from_json,
)
from workers.readers.process import WATCH_SECONDS, ReaderProcess
from workers.readers.template import COMMAND, NotStarted, ReaderTemplate
from workers.readers.tokenizer import RemoteTokenizer

KEPT_RESULTS = 32  # shapes and configs of bases, which every one of their fine-tunes is compared with

T = TypeVar("T")
log = logging.getLogger(__name__)


class ReaderPool:
    """The `Readers` of a worker: up to `size` child processes, each of which reads for up to `seconds` and takes up to
    `memory` bytes more than it has without a request. A process that ended is replaced. Thread-safe.
    """

    def __init__(
        self,
        size: int = 2,
        seconds: float = 30.0,
        memory: int = 2**30,
        *,
        command: tuple[str, ...] = COMMAND,
    ) -> None:
        self._size = size
        self._seconds = seconds
        self._memory = memory
        self._command = command
        self._template: ReaderTemplate | None = None
        self._starting = 0
        self._idle: list[ReaderProcess] = []
        self._processes: set[ReaderProcess] = set()
        self._changed = threading.Condition()
        self._stopped = False
        self._kept: OrderedDict[tuple[object, ...], Any] = OrderedDict()

    @property
    def pids(self) -> list[int]:
        """The process ids of all readers, and before them that of the process that they are forked from."""
        with self._changed:
            template = [self._template.pid] if self._template else []
            return template + sorted(process.pid for process in self._processes)

    def start(self) -> None:
        """Begin to import what readers need, without waiting for it. Otherwise the first request does."""
        self._current_template()

    def stop(self) -> None:
        """End all processes. Requests that are running, and later ones, raise `Unavailable`."""
        with self._changed:
            self._stopped = True
            processes, self._idle = list(self._processes), []
            self._processes.clear()
            template, self._template = self._template, None
            self._changed.notify_all()
        for process in processes:
            process.kill()
        if template is not None:
            template.kill()

    def read_finetune(self, repo: str, folder: Path, *, max_file_bytes: int) -> FineTune:
        choice = choose_checked(folder)
        arguments = {"top": str(folder), "folder": choice.folder, "paths": choice.paths}
        content = self.run(repo, "read_finetune", {**arguments, "max_file_bytes": max_file_bytes})
        with _expected(repo):
            return build_finetune(choice, contents_from_json(folder, content), values=True)

    def screen_finetune(self, repo: str, top: Path, choice: Choice, fetch_header: FetchHeader) -> FineTune:
        arguments = {"top": str(top), "folder": choice.folder, "paths": choice.paths}
        content = self.run(repo, "screen_finetune", arguments, _only(choice.weights, fetch_header))
        with _expected(repo):
            return build_finetune(choice, contents_from_json(top, content), values=False)

    def read_base(self, repo: str, folder: Path) -> BaseFiles:
        content = self.run(repo, "read_base", {"folder": str(folder)}, tokenizer_of=str(folder))
        with _expected(repo):
            tokenizer = RemoteTokenizer(
                lambda texts, options: self._encode(repo, folder, texts, options),
                lambda rows, options: self._decode(repo, folder, rows, options),
                content["tokens"],
                content["eos"],
                content["pad"],
            )
            return BaseFiles(object_from_json(content["config"]), tokenizer)

    def weight_shapes(self, repo: str, folder: Path) -> dict[str, Shape]:
        def read() -> dict[str, Shape]:
            content = self.run(repo, "weight_shapes", {"folder": str(folder)})
            with _expected(repo):
                return shapes_from_json(content)

        return self._keep(("shapes", folder, _state(folder)), read)

    def fetched_shapes(
        self, repo: str, folder: Path, names: Sequence[str], fetch_header: FetchHeader
    ) -> dict[str, Shape]:
        def read() -> dict[str, Shape]:
            arguments = {"folder": str(folder), "names": list(names)}
            content = self.run(repo, "fetched_shapes", arguments, _only(names, fetch_header))
            with _expected(repo):
                return shapes_from_json(content)

        return self._keep(("fetched", folder), read)  # the folder of one commit

    def read_object(self, repo: str, path: Path, error: type[Refused], *, max_bytes: int) -> dict[str, Any]:
        def read() -> dict[str, Any]:
            content = self.run(repo, "read_object", {"path": str(path), "error": error.code, "max_bytes": max_bytes})
            with _expected(repo):
                return object_from_json(content)

        return self._keep(("object", error, path, _state(path)), read)

    def bases_in_card(self, repo: str, path: Path) -> tuple[str, ...]:
        content = self.run(repo, "bases_in_card", {"path": str(path)})
        with _expected(repo):
            return tuple(texts_from_json(content))

    def convert_pickled(self, repo: str, source: Path, target: Path, *, max_file_bytes: int) -> None:
        arguments = {"source": str(source), "target": str(target), "max_file_bytes": max_file_bytes}
        self.run(repo, "convert_pickled", arguments)

    def run(
        self,
        repo: str,
        operation: str,
        arguments: Mapping[str, Any],
        fetch_header: FetchHeader | None = None,
        *,
        tokenizer_of: str | None = None,
    ) -> Any:
        """Run an operation in a free reader, preferably the one that used the tokenizer in the folder `tokenizer_of`.

        Raises what the operation raises, `ReaderEnded`, `Unavailable` if no reader can be started, and `Cancelled`.
        """
        process = self._lease(tokenizer_of)
        try:
            process.folder_in_use = tokenizer_of or process.folder_in_use
            return process.run(repo, operation, dict(arguments), fetch_header)
        finally:
            self._return(process)

    def _encode(self, repo: str, folder: Path, texts: list[str], options: Mapping[str, Any]) -> list[list[int]]:
        arguments = {"folder": str(folder), "texts": texts, "options": options}
        rows = self.run(repo, "encode", arguments, tokenizer_of=str(folder))
        with _expected(repo):
            if len(rows) != len(texts):
                raise InvalidMessage("other texts")
            return token_rows_from_json(rows)

    def _decode(self, repo: str, folder: Path, rows: list[list[int]], options: Mapping[str, Any]) -> list[str]:
        arguments = {"folder": str(folder), "sequences": rows, "options": options}
        texts = self.run(repo, "decode", arguments, tokenizer_of=str(folder))
        with _expected(repo):
            if len(texts) != len(rows):
                raise InvalidMessage("other tokens")
            return texts_from_json(texts)

    def _lease(self, tokenizer_of: str | None) -> ReaderProcess:
        """An idle reader, or a new one if there are not enough. Raises `Unavailable` and `Cancelled`."""
        with self._changed:
            while not self._idle and len(self._processes) + self._starting >= self._size:
                raise_if_cancelled()
                self._changed.wait(WATCH_SECONDS)
            if self._stopped:
                raise Unavailable("The worker is stopping.")
            if self._idle:
                warm = [process for process in self._idle if process.folder_in_use == tokenizer_of]
                process = warm[0] if warm else self._idle[0]
                self._idle.remove(process)
                if not process.has_ended:
                    return process
                self._processes.remove(process)
                process.kill()
            self._starting += 1
        try:
            process = ReaderProcess(self._current_template(), self._seconds, self._memory)
        except NotStarted as error:
            raise Unavailable(str(error)) from error
        finally:
            with self._changed:
                self._starting -= 1
                self._changed.notify()
        with self._changed:
            self._processes.add(process)
        return process

    def _return(self, process: ReaderProcess) -> None:
        is_usable = not process.has_ended and not process.is_bloated()
        with self._changed:
            if is_usable and process in self._processes:  # not stopped meanwhile
                self._idle.append(process)
            else:
                self._processes.discard(process)
            self._changed.notify()
        if not is_usable:
            log.warning("reader %s ended; another one takes its place", process.pid)
            process.kill()

    def _current_template(self) -> ReaderTemplate:
        with self._changed:
            if self._stopped:
                raise NotStarted("The worker is stopping.")
            if self._template is not None and self._template.has_ended:
                self._template.kill()
                self._template = None
            if self._template is None:
                self._template = ReaderTemplate(self._command)
            return self._template

    def _keep(self, key: tuple[object, ...], read: Callable[[], T]) -> T:
        """The result of `read`, or the one that was kept for the same key."""
        with self._changed:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        result = read()
        with self._changed:
            self._kept[key] = result
            while len(self._kept) > KEPT_RESULTS:
                self._kept.popitem(last=False)
        return result


@contextmanager
def _expected(repo: str) -> Iterator[None]:
    """Raises `ReaderCrashed` if an answer is not what a reader answers."""
    try:
        yield
    except (InvalidMessage, KeyError, TypeError, AttributeError) as error:
        raise ReaderCrashed(f"The process that read the files of {repo} answered nonsense: {error!r}.", repo) from error


def _only(paths: Sequence[str], fetch_header: FetchHeader) -> FetchHeader:
    """Fetches the headers of `paths` alone, whatever a reader asks for."""

    def fetch(path: str) -> RawHeader:
        if path not in paths:
            raise InvalidMessage("a header of another file")
        return fetch_header(path)

    return fetch


def _state(path: Path) -> tuple[object, ...]:
    """What changes when a file, or one in a folder, is written again. Raises `FolderUnreadable`."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    except OSError as error:
        raise FolderUnreadable(f"{path.name} cannot be read: {error.strerror or error}.") from error
