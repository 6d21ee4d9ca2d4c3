from __future__ import annotations

from catalog.threads import throttling
from catalog.threads.throttling import throttled


class Clock:
    """A clock that only sleeping and working move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_sleeps_as_long_as_making_and_processing_an_item_took(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(throttling, "time", clock)

    def items():
        for seconds in (1.0, 2.0):
            clock.now += seconds
            yield seconds

    for _ in throttled(items()):
        clock.now += 0.5
    assert clock.slept == [1.5, 2.5]
