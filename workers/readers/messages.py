"""The messages between a worker and its readers: JSON with its length before it. Nothing is ever unpickled.

The worker sends `{"operation": ..., "arguments": {...}}`. The reader may ask for a header with `{"header": PATH}`, and
gets `{"header": BASE64, "size": ...}` or `{"unavailable": true}`. Its last message is `{"result": ...}`,
`{"error": CODE, "message": ...}` for an error of the catalog, or `{"ended": CODE, "message": ...}` before it exits.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from typing import Any

from workers.finetunes.contents import Card, Contents
from workers.finetunes.safetensors_file import DTYPES, TensorEntry
from workers.finetunes.shape_fit import Shape
from workers.finetunes.weight_files import Header

MAX_MESSAGE_BYTES = 128 * 2**20  # the headers of 2**17 tensors take about 32 MiB
LENGTH_BYTES = 4
RECEIVED_AT_ONCE = 2**20


class Disconnected(Exception):
    """The other side closed its end."""


class InvalidMessage(Exception):
    """The other side sent what is no message."""


def send(connection: socket.socket, message: Mapping[str, Any], wait: Callable[[], None] = lambda: None) -> None:
    """Send a message. `wait` is called before each part, and after each timeout of the connection."""
    content = json.dumps(message).encode("ascii")
    if len(content) > MAX_MESSAGE_BYTES:
        raise InvalidMessage(f"a message of {len(content):,} bytes; the limit is {MAX_MESSAGE_BYTES:,}")
    rest = memoryview(len(content).to_bytes(LENGTH_BYTES, "big") + content)
    while rest:
        wait()
        try:
            rest = rest[connection.send(rest) :]
        except TimeoutError:
            continue
        except OSError as error:
            raise Disconnected from error


def receive(connection: socket.socket, wait: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """The next message. Raises `Disconnected` and `InvalidMessage`. `wait` is called as by `send`."""
    length = int.from_bytes(_receive_bytes(connection, LENGTH_BYTES, wait), "big")
    if length > MAX_MESSAGE_BYTES:
        raise InvalidMessage(f"a message of {length:,} bytes; the limit is {MAX_MESSAGE_BYTES:,}")
    try:
        message = json.loads(_receive_bytes(connection, length, wait))
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(str(error)) from error
    if not isinstance(message, dict):
        raise InvalidMessage("not an object")
    return message


def _receive_bytes(connection: socket.socket, count: int, wait: Callable[[], None]) -> bytearray:
    content = bytearray()
    while len(content) < count:
        wait()
        try:
            part = connection.recv(min(count - len(content), RECEIVED_AT_ONCE))
        except TimeoutError:
            continue
        except OSError as error:
            raise Disconnected from error
        if not part:
            raise Disconnected
        content += part
    return content


def contents_as_json(contents: Contents) -> dict[str, Any]:
    return {
        "objects": contents.objects,
        "headers": {path: _header_as_json(header) for path, header in contents.headers.items()},
        "card": [contents.card.bases, contents.card.words],
    }


def _header_as_json(header: Header) -> dict[str, Any]:
    return {name: [entry.dtype, entry.shape, entry.start, entry.end] for name, entry in header.items()}


def contents_from_json(top: Any, content: Mapping[str, Any]) -> Contents:
    """Raises `InvalidMessage`, as do the functions below."""
    try:
        objects, (bases, words) = content["objects"], content["card"]
        valid = all(isinstance(value, dict) for value in objects.values())
        valid = valid and all(isinstance(base, str) for base in bases) and isinstance(words, str | None)
        headers = {
            path: {name: _entry(*entry) for name, entry in header.items()}
            for path, header in content["headers"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidMessage(f"no contents: {error!r}") from error
    if not valid:
        raise InvalidMessage("no contents")
    return Contents(top, objects, headers, Card(tuple(bases), words))


def _entry(dtype: str, shape: list[int], start: int, end: int) -> TensorEntry:
    if dtype not in DTYPES or not _are_counts([*shape, start, end]):
        raise ValueError("an entry of a header")
    return TensorEntry(dtype, tuple(shape), start, end)


def shapes_from_json(content: Any) -> dict[str, Shape]:
    if not isinstance(content, dict) or not all(_are_counts(shape) for shape in content.values()):
        raise InvalidMessage("no shapes")
    return {name: tuple(shape) for name, shape in content.items()}


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def token_rows_from_json(content: Any) -> list[list[int]]:
    if not isinstance(content, list) or not all(_are_counts(row) for row in content):
        raise InvalidMessage("no token ids")
    return content


def texts_from_json(content: Any) -> list[str]:
    if not isinstance(content, list) or not all(isinstance(text, str) for text in content):
        raise InvalidMessage("no texts")
    return content


def object_from_json(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise InvalidMessage("no object")
    return content
