from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from app.cli import console
from benchmarks.arithmetic import mixture_rows, store_domains, wait_until_indexed
from catalog.database import Database
from tests.support import catalog as entries
from tests.support.api import url  # noqa: F401  (a fixture)

DOMAINS = ("law", "math", "code", "chat")


@pytest.fixture
def orthogonal(database: Database) -> tuple[list[str], list[str]]:
    """Two adapters per domain and every mixture of two domains. The last mixture has the vector of another pair."""
    axes = dict(zip(DOMAINS, 5 * np.eye(8)[:4], strict=True))
    pool = [f"local/tiny-{name}-{split}" for name in DOMAINS for split in ("first", "second")]
    for number, name in enumerate(pool):
        entries.put(database, name, axes[name.split("-")[1]] + 0.1 * np.eye(8)[4 + number % 4])
    pairs = list(combinations(DOMAINS, 2))
    mixtures = [f"local/tiny-mix-{first}-{second}" for first, second in pairs]
    for name, (first, second) in zip(mixtures, [*pairs[:-1], pairs[0]], strict=True):
        entries.put(database, name, axes[first] / 2 + axes[second] / 2)
    return pool, mixtures


def test_own_pair_is_ranked_among_all_sums_for_every_mixture(
    url: str,  # noqa: F811
    orthogonal: tuple[list[str], list[str]],
):
    pool, mixtures = orthogonal
    with console.connect(url) as client:
        [space] = client.get("/v1/spaces")["spaces"]
        wait_until_indexed(client, [*pool, *mixtures], space)
        rows = list(mixture_rows(client, store_domains(client, pool, space), mixtures, space, unit=False))

    assert [row["rank"] for row in rows] == [1, 1, 1, 1, 1, 6]
    assert [row["rank_of_all"] for row in rows[:-1]] == [1] * 5
    assert all(row["nearest"] == row["mixture"] for row in rows[:-1])
    assert rows[-1]["nearest"] == "law + math"
    assert rows[0]["scale"] == pytest.approx(0.5, abs=0.01)
