"""Whether the tests use external servers."""

from __future__ import annotations

import os

EXTERNAL = bool(os.environ.get("DATABASE_URL") or os.environ.get("REDIS_URL"))  # the tests must not stop them
