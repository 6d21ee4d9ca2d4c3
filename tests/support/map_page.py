"""A response of `GET /v1/map`, and a helper that opens the map page."""

from __future__ import annotations

from typing import Any

from tests.support.browser import Page

SPACE = "a" * 64
HOSTILE = "<img src=x onerror=document.title='hacked'>"


def map_response() -> dict[str, Any]:
    """Two clusters of three models, one model without a cluster, and one arrival."""
    return {
        "space": SPACE,
        "version": 1,
        "side": 4095,
        "neighbors": 10,
        "mean_distortion": 0.125,
        "clusters": [{"id": 7, "name": "law", "size": 3}, {"id": 9, "name": HOSTILE, "size": 3}],
        "points": {
            "owners": [["ann", ["law-1", "law-2", "law-3"]], ["bob", ["code-1", "code-2", "code-3"]], ["cy", ["odd"]]],
            "x": [100, 300, 200, 3900, 3700, 3800, 2000],
            "y": [100, 120, 300, 3900, 3880, 3700, 2000],
            "cluster": [0, 0, 0, 1, 1, 1, -1],
            "distortion": [0, 0, 0, 0, 0, 0, 10],
        },
        "arrivals": {"repo_ids": ["dee/new"], "x": [3000], "y": [1000], "cluster": [0]},
        "removed": [],
    }


def open_map(browser: Page, url: str, path: str = "/map") -> None:
    """Open the map page and wait until it is loaded."""
    browser.open("about:blank")
    browser.wait_for("location.href === 'about:blank'")
    browser.open(url + path)
    browser.wait_for("document.body?.dataset.page === 'loaded'")
