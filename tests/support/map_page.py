"""The page of the map, and an answer for it."""

from __future__ import annotations

from typing import Any

from tests.support.browser import Page

SPACE = "a" * 64
HOSTILE = "<img src=x onerror=document.title='hacked'>"


def answer() -> dict[str, Any]:
    """Two clusters of three, one model without a cluster, and one that came since."""
    return {
        "space": SPACE,
        "version": 1,
        "side": 4095,
        "neighbours": 10,
        "mean_distortion": 0.125,
        "clusters": [{"id": 7, "name": "law", "size": 3}, {"id": 9, "name": HOSTILE, "size": 3}],
        "points": {
            "owners": [["ann", ["law-1", "law-2", "law-3"]], ["bob", ["code-1", "code-2", "code-3"]], ["cy", ["odd"]]],
            "x": [100, 300, 200, 3900, 3700, 3800, 2000],
            "y": [100, 120, 300, 3900, 3880, 3700, 2000],
            "cluster": [0, 0, 0, 1, 1, 1, -1],
            "distortion": [0, 0, 0, 0, 0, 0, 10],
        },
        "placed": {"repo_ids": ["dee/new"], "x": [3000], "y": [1000], "cluster": [0]},
        "gone": [],
    }


def open_map(browser: Page, url: str, address: str = "/map") -> None:
    browser.open("about:blank")
    browser.wait_for("location.href === 'about:blank'")
    browser.open(url + address)
    browser.wait_for("document.body?.dataset.page === 'whole'")
