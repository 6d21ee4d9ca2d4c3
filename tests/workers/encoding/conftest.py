"""Limits torch to one thread in all tests of this package."""

from __future__ import annotations

from tests.support.threads import one_thread  # noqa: F401  (a fixture)
