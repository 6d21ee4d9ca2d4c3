from __future__ import annotations

from benchmarks.bodies import VALID, measure


def test_largest_and_worst_bodies_of_every_route_are_measured():
    rows = measure(times=1)
    outcomes = {(row["path"], row["body"]): row["outcome"] for row in rows}
    assert {path for path, _ in outcomes} >= {*VALID, "/v1/models", "/v1/merges", "/v1/admin/keys"}
    assert {outcomes[path, "valid"] for path in VALID} == {"valid"}
    over = ("a few values too many", "quotation marks")
    refused = {outcome for (_, name), outcome in outcomes.items() if name in over}
    assert refused == {"body_too_large"}
