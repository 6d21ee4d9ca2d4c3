"""Whether the servers are the tests' own."""

from __future__ import annotations

import os

EXTERNAL = bool(os.environ.get("DATABASE_URL") or os.environ.get("REDIS_URL"))  # servers that are not ours to kill
