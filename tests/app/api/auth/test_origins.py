"""Pages of other sites cannot use a browser to reach the API."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from catalog.database import Database
from catalog.settings import settings
from tests.support.problem_documents import documented_problem

FORGED = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "", "[::1", "127.0.0.1.nip.io"]
)
def test_other_names_are_refused(api: TestClient, host: str):
    """DNS rebinding: the page's own name points to this machine."""
    response = api.get("/v1/models", headers={"Host": host})
    assert (response.status_code, documented_problem(response)["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "192.0.2.7"]
)
def test_localhost_and_addresses_are_answered(api: TestClient, host: str):
    assert api.get("/v1/models", headers={"Host": host}).status_code == 200


def test_names_of_the_settings_are_answered(database: Database):
    conf = settings().model_copy(update={"feed_interval": 3600, "allowed_hosts": ("deltadex.example",)})
    with TestClient(create_app(conf), "http://Deltadex.example") as client:
        assert client.get("/v1/models").status_code == 200
        assert client.get("/v1/models", headers={"Host": "x.deltadex.example"}).status_code == 403
        # a proxy passes the page's name in `Origin`, and its own in `Host`
        headers = {"Host": "127.0.0.1:8000", "Origin": "https://deltadex.example"}
        assert client.post("/v1/search", json={}, headers=headers).status_code == 422


@pytest.mark.parametrize("path", ["/v1/admin/queues/encode/pause", "/v1/jobs/1/cancel", "/v1/models"])
def test_forged_requests_are_refused(api: TestClient, path: str):
    response = api.post(path, headers=FORGED)
    assert (response.status_code, documented_problem(response)["code"]) == (403, "cross_site")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
    ],
)
def test_scripts_of_other_sites_cannot_read(api: TestClient, headers: dict[str, str]):
    response = api.get("/v1/models", headers=headers)
    assert (response.status_code, documented_problem(response)["code"]) == (403, "cross_site")
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},  # a link
    ],
)
def test_own_pages_and_links_are_answered(api: TestClient, headers: dict[str, str]):
    assert api.get("/v1/models", headers=headers).status_code == 200
