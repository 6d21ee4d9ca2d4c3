"""Pico models are faster on one thread, and much faster where other processes use the cores too."""

from __future__ import annotations

from tests.support.threads import one_thread  # noqa: F401  (a fixture)
