from __future__ import annotations

from benchmarks import private_search


def test_every_share_is_measured_with_both_kinds_of_segment():
    report = private_search.measure(models=400, dimension=16, searches=10)
    rows = [(row["segment"], row["private"]) for row in report["shares"]]
    assert rows == [(name, share) for share in private_search.SHARES for name in ("exact", "main segment")]
    assert all(row["ratio"] > 0 for row in report["shares"])
