"""What only admins see of errors and workers: details of unexpected errors, paths, hosts and process ids."""

from __future__ import annotations

import re

from catalog.auth.viewer import Viewer
from catalog.errors import CatalogError

UNEXPECTED = "An unexpected error. Admins see the details; retry later."
# an absolute path with at least two parts, which is neither part of a URL nor a route of this API
_PATH = re.compile(r"(?<![\w/.:~+-])/(?!v1/)(?:[\w.@+~=-]+/)+([\w.@+~=-]*)")


def message_for(viewer: Viewer, code: str, message: str, folder: str | None = None) -> str:
    """The message of a stored error as the viewer may see it. `folder` is the model's folder on this machine.

    For others than admins, an unexpected error, which is stored as the repr of the exception, has no details, and of
    absolute paths only the last part is left.
    """
    if viewer.is_admin:
        return message
    if code == CatalogError.code:
        return UNEXPECTED
    return without_paths(message.replace(folder, "its folder") if folder else message)


def without_paths(text: str) -> str:
    """The text with the last part of each absolute path in place of the path."""
    return _PATH.sub(lambda path: path[1] or "a folder", text)
