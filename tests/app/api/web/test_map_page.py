"""The map's page in a real browser, before an API that answers from memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from app.api.web import routes as web_routes
from tests.support.browser import Page
from tests.support.map_page import HOSTILE, SPACE, answer, open_map
from tests.support.serving import serving
from tests.support.waiting import wait_until


class Canned:
    """An app of the page's routes and three answers; what it says of the map may be changed meanwhile."""

    def __init__(self) -> None:
        self.map, self.status = answer(), 200
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
        near = [{"repo_id": f"{owner}/{name[:-1]}{number}", "similarity": 1 - number / 8} for number in (2, 3)]
        return {"neighbors": near, "note": None}


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with Page() as page:
        yield page


@pytest.fixture(scope="module")
def canned_url() -> Iterator[tuple[Canned, str]]:
    canned = Canned()
    with serving(canned.app) as url:
        yield canned, url


@pytest.fixture
def canned(canned_url: tuple[Canned, str]) -> Canned:
    canned_url[0].map, canned_url[0].status = answer(), 200
    return canned_url[0]


@pytest.fixture
def page(browser: Page, canned: Canned, canned_url: tuple[Canned, str]) -> Page:
    open_map(browser, canned_url[1])
    assert browser.run("document.body.dataset.state") == "ready"
    return browser


def place_of(page: Page, name: str) -> tuple[float, float]:
    """Where a model is on the screen."""
    found = page.run(f"""import('/map/map.js').then(({{drawing, points}}) => {{
        const [x, y] = drawing.toPixels(points().rows.get({name!r}));
        const box = drawing.canvas.getBoundingClientRect();
        return [box.left + x, box.top + y];
    }})""")
    return found[0], found[1]


def test_the_page_says_what_is_on_the_map(page: Page):
    assert page.text("#status") == "8 models, 2 clusters, 1 since the map was made"
    assert "13 %" in page.text("#quality")


def test_the_legend_names_the_clusters_and_strangers_words_stay_words(page: Page):
    rows = page.run("[...document.querySelectorAll('#legend li span:nth-child(2)')].map((each) => each.textContent)")
    assert rows == ["law", HOSTILE]
    assert page.run("document.title") == "Deltadex: the map"
    assert page.run("document.images.length") == 0


def test_points_have_the_colours_of_the_legend(page: Page):
    place_of(page, "ann/law-1")
    painted = page.wait_for("""import('/map/map.js').then(({drawing, points}) => {
        const [x, y] = drawing.toPixels(points().rows.get('ann/law-1'));
        const ratio = devicePixelRatio;
        const [red, green, blue, alpha] = drawing.context.getImageData(x * ratio, y * ratio, 1, 1).data;
        return alpha && [red, green, blue];
    })""")
    swatch = page.run("getComputedStyle(document.querySelector('#legend .swatch')).backgroundColor")
    assert painted == pytest.approx([int(each) for each in swatch[4:-1].split(",")], abs=4)


def test_hovering_shows_the_name_and_the_cluster(page: Page):
    page.move_to(*place_of(page, "ann/law-3"))
    assert page.wait_for("!document.querySelector('#tooltip').hidden")
    assert page.text("#tooltip").split() == ["ann/law-3", "law"]


def test_hovering_over_nothing_shows_nothing(page: Page):
    page.move_to(*place_of(page, "ann/law-3"))
    page.wait_for("!document.querySelector('#tooltip').hidden")
    x, y = place_of(page, "cy/odd")
    page.move_to(x + 60, y)
    page.wait_for("document.querySelector('#tooltip').hidden")


def test_a_click_shows_the_neighbours_that_the_api_tells(page: Page):
    page.click(*place_of(page, "ann/law-1"))
    page.wait_for("document.querySelectorAll('#neighbours li').length === 2")
    assert page.text("#model-name") == "ann/law-1"
    assert page.text("#neighbours").split() == ["ann/law-2", "0.750", "ann/law-3", "0.625"]
    assert page.run("location.hash") == "#ann%2Flaw-1"


def test_a_click_beside_all_closes_the_model(page: Page):
    page.click(*place_of(page, "ann/law-1"))
    page.wait_for("!document.querySelector('#model').hidden")
    x, y = place_of(page, "cy/odd")
    page.click(x + 60, y)
    page.wait_for("document.querySelector('#model').hidden")


def test_the_address_leads_to_a_model(browser: Page, canned: Canned, canned_url: tuple[Canned, str]):
    open_map(browser, canned_url[1], "/map#bob%2Fcode-1")
    browser.wait_for("document.querySelectorAll('#neighbours li').length === 2")
    assert browser.text("#model-name") == "bob/code-1"


def test_a_model_is_found_by_a_part_of_its_name(page: Page):
    page.run("document.querySelector('#search').focus()")
    page.type("code-2")
    page.press("Enter")
    page.wait_for("document.querySelector('#model-name').textContent === 'bob/code-2'")


def test_a_misplaced_model_and_one_that_came_since_are_told_apart(page: Page):
    page.click(*place_of(page, "cy/odd"))
    page.wait_for("document.querySelector('#facts').textContent.includes('100 % of its neighbours')")
    page.click(*place_of(page, "dee/new"))
    page.wait_for("document.querySelector('#facts').textContent.includes('since the map was made')")


def test_dragging_moves_the_map(page: Page):
    x, y = place_of(page, "cy/odd")
    page.drag((x + 60, y), (x + 160, y + 40))
    wait_until(lambda: place_of(page, "cy/odd") == pytest.approx((x + 100, y + 40), abs=2), "the map has moved")


def test_the_wheel_zooms_around_the_pointer(page: Page):
    odd, law = place_of(page, "cy/odd"), place_of(page, "ann/law-1")
    page.turn_wheel(*odd, by=-400)
    page.wait_for(f"""import('/map/map.js').then(({{drawing, points}}) => {{
        const [x] = drawing.toPixels(points().rows.get('ann/law-1'));
        return drawing.canvas.getBoundingClientRect().left + x < {law[0] - 50};
    }})""")
    assert place_of(page, "cy/odd") == pytest.approx(odd, abs=2)


def test_models_that_left_are_not_shown(browser: Page, canned: Canned, canned_url: tuple[Canned, str]):
    canned.map["gone"] = [6]
    open_map(browser, canned_url[1])
    browser.wait_for("document.querySelector('#status').textContent.startsWith('7 models')")
    assert browser.run("import('/map/map.js').then(({points}) => points().rows.has('cy/odd'))") is False


def test_an_answer_that_is_no_map_is_told(browser: Page, canned: Canned, canned_url: tuple[Canned, str]):
    canned.map, canned.status = {"detail": "There is no map yet."}, 404
    open_map(browser, canned_url[1])
    assert browser.run("document.body.dataset.state") == "failed"
    assert browser.text("#status").startswith("There is no map yet.")


def test_the_page_runs_nothing_that_is_not_a_file_of_this_server(canned_url: tuple[Canned, str]):
    policy = web_routes.HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    for file in web_routes.FOLDER.iterdir():
        assert "//cdn" not in file.read_text()
        assert "https://" not in file.read_text()
