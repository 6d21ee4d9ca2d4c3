"""The map page in a real browser, with an API that returns canned responses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from app.api.web import routes as web_routes
from tests.support.browser import Page
from tests.support.map_page import HOSTILE, SPACE, map_response, open_map
from tests.support.serving import serving
from tests.support.waiting import wait_until


class CannedApi:
    """An app with the routes of the page and three API routes. `map` and `status` can be changed by a test."""

    def __init__(self) -> None:
        self.map, self.status = map_response(), 200
        self.app = FastAPI()
        self.app.include_router(web_routes.router)
        self.app.get("/v1/map")(self._map)
        self.app.get("/v1/spaces")(self._spaces)
        self.app.get("/v1/models/{owner}/{name}/neighbors")(self._neighbors)

    def _map(self) -> Response:
        return JSONResponse(self.map, self.status, {"ETag": f'"{hash(str(self.map))}"'})

    def _spaces(self) -> dict[str, Any]:
        return {"spaces": [{"key": SPACE, "feature": "delta_activations", "base_repo": "tiny/base"}]}

    def _neighbors(self, owner: str, name: str) -> dict[str, Any]:
        neighbors = [{"repo_id": f"{owner}/{name[:-1]}{number}", "similarity": 1 - number / 8} for number in (2, 3)]
        return {"neighbors": neighbors, "note": None}


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with Page() as page:
        yield page


@pytest.fixture(scope="module")
def canned_url() -> Iterator[tuple[CannedApi, str]]:
    canned = CannedApi()
    with serving(canned.app) as url:
        yield canned, url


@pytest.fixture
def canned(canned_url: tuple[CannedApi, str]) -> CannedApi:
    canned_url[0].map, canned_url[0].status = map_response(), 200
    return canned_url[0]


@pytest.fixture
def page(browser: Page, canned: CannedApi, canned_url: tuple[CannedApi, str]) -> Page:
    open_map(browser, canned_url[1])
    assert browser.run("document.body.dataset.state") == "ready"
    return browser


def position_of(page: Page, name: str) -> tuple[float, float]:
    """The position of a model on the page, in pixels."""
    position = page.run(f"""import('/map/map.js').then(({{mapCanvas, points}}) => {{
        const [x, y] = mapCanvas.toPixels(points().rows.get({name!r}));
        const box = mapCanvas.canvas.getBoundingClientRect();
        return [box.left + x, box.top + y];
    }})""")
    return position[0], position[1]


def test_status_and_quality_describe_the_map(page: Page):
    assert page.text("#status") == "8 models, 2 clusters, 1 added since the map was built"
    assert "13%" in page.text("#quality")


def test_legend_names_the_clusters_without_interpreting_html(page: Page):
    rows = page.run("[...document.querySelectorAll('#legend li span:nth-child(2)')].map((span) => span.textContent)")
    assert rows == ["law", HOSTILE]
    assert page.run("document.title") == "Deltadex: map"
    assert page.run("document.images.length") == 0


def test_points_have_the_colors_of_the_legend(page: Page):
    position_of(page, "ann/law-1")
    painted = page.wait_for("""import('/map/map.js').then(({mapCanvas, points}) => {
        const [x, y] = mapCanvas.toPixels(points().rows.get('ann/law-1'));
        const ratio = devicePixelRatio;
        const [red, green, blue, alpha] = mapCanvas.context.getImageData(x * ratio, y * ratio, 1, 1).data;
        return alpha && [red, green, blue];
    })""")
    swatch = page.run("getComputedStyle(document.querySelector('#legend .swatch')).backgroundColor")
    assert painted == pytest.approx([int(channel) for channel in swatch[4:-1].split(",")], abs=4)


def test_hovering_over_a_point_shows_its_name_and_cluster(page: Page):
    page.move_to(*position_of(page, "ann/law-3"))
    assert page.wait_for("!document.querySelector('#tooltip').hidden")
    assert page.text("#tooltip").split() == ["ann/law-3", "law"]


def test_tooltip_is_hidden_away_from_points(page: Page):
    page.move_to(*position_of(page, "ann/law-3"))
    page.wait_for("!document.querySelector('#tooltip').hidden")
    x, y = position_of(page, "cy/odd")
    page.move_to(x + 60, y)
    page.wait_for("document.querySelector('#tooltip').hidden")


def test_click_on_a_point_shows_its_neighbors(page: Page):
    page.click(*position_of(page, "ann/law-1"))
    page.wait_for("document.querySelectorAll('#neighbors li').length === 2")
    assert page.text("#model-name") == "ann/law-1"
    assert page.text("#neighbors").split() == ["ann/law-2", "0.750", "ann/law-3", "0.625"]
    assert page.run("location.hash") == "#ann%2Flaw-1"


def test_click_away_from_points_closes_the_panel(page: Page):
    page.click(*position_of(page, "ann/law-1"))
    page.wait_for("!document.querySelector('#model').hidden")
    x, y = position_of(page, "cy/odd")
    page.click(x + 60, y)
    page.wait_for("document.querySelector('#model').hidden")


def test_url_fragment_selects_a_model(browser: Page, canned: CannedApi, canned_url: tuple[CannedApi, str]):
    open_map(browser, canned_url[1], "/map#bob%2Fcode-1")
    browser.wait_for("document.querySelectorAll('#neighbors li').length === 2")
    assert browser.text("#model-name") == "bob/code-1"


def test_search_finds_a_model_by_part_of_its_name(page: Page):
    page.run("document.querySelector('#search').focus()")
    page.type("code-2")
    page.press("Enter")
    page.wait_for("document.querySelector('#model-name').textContent === 'bob/code-2'")


def test_panel_shows_the_distortion_of_a_point_or_that_it_is_an_arrival(page: Page):
    page.click(*position_of(page, "cy/odd"))
    page.wait_for("document.querySelector('#facts').textContent.includes('100% of its nearest neighbors')")
    page.click(*position_of(page, "dee/new"))
    page.wait_for("document.querySelector('#facts').textContent.includes('since the map was built')")


def test_dragging_moves_the_map(page: Page):
    x, y = position_of(page, "cy/odd")
    page.drag((x + 60, y), (x + 160, y + 40))
    wait_until(lambda: position_of(page, "cy/odd") == pytest.approx((x + 100, y + 40), abs=2), "the map has moved")


def test_the_wheel_zooms_around_the_pointer(page: Page):
    odd, law = position_of(page, "cy/odd"), position_of(page, "ann/law-1")
    page.scroll(*odd, by=-400)
    page.wait_for(f"""import('/map/map.js').then(({{mapCanvas, points}}) => {{
        const [x] = mapCanvas.toPixels(points().rows.get('ann/law-1'));
        return mapCanvas.canvas.getBoundingClientRect().left + x < {law[0] - 50};
    }})""")
    assert position_of(page, "cy/odd") == pytest.approx(odd, abs=2)


def test_removed_models_are_not_shown(browser: Page, canned: CannedApi, canned_url: tuple[CannedApi, str]):
    canned.map["removed"] = [6]
    open_map(browser, canned_url[1])
    browser.wait_for("document.querySelector('#status').textContent.startsWith('7 models')")
    assert browser.run("import('/map/map.js').then(({points}) => points().rows.has('cy/odd'))") is False


def test_error_of_the_api_is_shown(browser: Page, canned: CannedApi, canned_url: tuple[CannedApi, str]):
    canned.map, canned.status = {"detail": "There is no map yet."}, 404
    open_map(browser, canned_url[1])
    assert browser.run("document.body.dataset.state") == "failed"
    assert browser.text("#status").startswith("There is no map yet.")


def test_page_loads_files_of_this_server_only(canned_url: tuple[CannedApi, str]):
    policy = web_routes.HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    for file in web_routes.FOLDER.iterdir():
        assert "//cdn" not in file.read_text()
        assert "https://" not in file.read_text()
