from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api.web import routes as web_routes


@pytest.fixture(scope="module")
def web() -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(web_routes.router)
    with TestClient(app, follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "type_"),
    [("/map", "text/html"), ("/map/map.js", "text/javascript"), ("/map/map.css", "text/css")],
)
def test_files_of_the_page_have_their_content_type_and_the_headers(web: TestClient, path: str, type_: str):
    response = web.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == f"{type_}; charset=utf-8"
    assert {name: response.headers[name] for name in web_routes.HEADERS} == web_routes.HEADERS


@pytest.mark.parametrize("path", ["/", "/map/"])
def test_other_paths_redirect_to_the_page(web: TestClient, path: str):
    response = web.get(path)
    assert (response.status_code, response.headers["location"]) == (307, "/map")


@pytest.mark.parametrize("path", ["/map/none.js", "/map/../routes.py", "/map/%2e%2e/routes.py"])
def test_unknown_file_returns_404(web: TestClient, path: str):
    assert web.get(path).status_code == 404
