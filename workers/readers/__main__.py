"""The template of the readers: `python -m workers.readers FD`.

It forks a reader for each request that comes through the socket FD, and ends when the socket closes. A reader reads
untrusted files for a worker. It has no secrets in its environment, and ends when its own socket closes.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
import tempfile
from pathlib import Path

from transformers.utils import logging as transformers_logging

from catalog.errors import CatalogError
from catalog.errors.root import first_line
from workers.finetunes.contents import RawHeader
from workers.readers.messages import Disconnected, receive, send
from workers.readers.operations import Operations, import_common_classes

ALARM_FACTOR = 2  # of the deadline, after which the kernel ends a reader whose worker is gone


def fork_readers(connection: socket.socket, kind: type[Operations]) -> None:
    """Fork a reader for each request, and wait for those that the worker ended."""
    while True:
        request = receive(connection)
        if "reap" in request:
            _, status = os.waitpid(request["reap"], 0)
            send(connection, {"status": os.waitstatus_to_exitcode(status)})
            continue
        _, (descriptor,), _, _ = socket.recv_fds(connection, 1, 1)
        if pid := os.fork():
            os.close(descriptor)
            send(connection, {"pid": pid})
            continue
        connection.close()
        tempfile.tempdir = request["scratch"]
        with socket.socket(fileno=descriptor) as own, contextlib.suppress(Disconnected):
            if sys.platform == "linux":
                limit_memory(2 * request["memory"])
            serve(own, request["seconds"], kind)
        os._exit(0)  # without the destructors of native libraries


def serve(connection: socket.socket, seconds: float, kind: type[Operations]) -> None:
    """Answer requests until the worker closes the connection, or something other than an `Exception` is raised."""

    def fetch_header(path: str) -> RawHeader:
        send(connection, {"header": path})
        signal.alarm(0)  # the worker waits for the Hub
        answer = receive(connection)
        signal.alarm(limit)
        if "unavailable" in answer:
            raise _Interrupted
        return base64.b64decode(answer["header"]), answer["size"]

    operations = kind(fetch_header)
    limit = max(1, round(ALARM_FACTOR * seconds))
    while True:
        request = receive(connection)
        signal.alarm(limit)
        try:
            answer = {"result": operations.run(request["operation"], request["arguments"])}
        except _Interrupted:
            continue
        except CatalogError as error:
            answer = {"error": error.code, "message": str(error)}
        except BaseException as error:  # such as a Rust panic, after which nothing is sure
            code = "reader_out_of_memory" if isinstance(error, MemoryError) else "reader_crashed"
            send(connection, {"ended": code, "message": f"{type(error).__name__}: {first_line(error)}"})
            return
        finally:
            signal.alarm(0)
        send(connection, answer)


class _Interrupted(Exception):
    """The worker could not fetch a header, and raises the error itself."""


def limit_memory(count: int) -> None:
    """Let this process allocate `count` more bytes of private memory than it has now, whatever the worker sees."""
    status = Path("/proc/self/status").read_text()
    limit = int(status.partition("VmData:")[2].split()[0]) * 1024 + count  # the kernel counts in KiB
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def main(kind: type[Operations] = Operations) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the worker's end ends this process
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    import_common_classes()
    gc.freeze()  # so that no collection in a reader copies the pages that it shares
    with socket.socket(fileno=int(sys.argv[1])) as connection, contextlib.suppress(Disconnected):
        send(connection, {"ready": True})
        fork_readers(connection, kind)
    os._exit(0)


if __name__ == "__main__":
    main()
