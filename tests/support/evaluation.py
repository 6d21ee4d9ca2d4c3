"""The small pool that evaluations run on."""

from __future__ import annotations

LABELS = ("red", "red", "red", "blue", "blue", "blue")
PROBES = ("Please answer.", "a longer request: Input.")
