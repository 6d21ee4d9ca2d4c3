from __future__ import annotations

import os
import time
from email.utils import formatdate
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from catalog.errors import (
    CatalogError,
    DiskFull,
    GatedRepo,
    HubRateLimited,
    HubUnavailable,
    RepoNotFound,
)
from tests.support.hub_client import ADAPTER, make_hub
from tests.support.hub_server import Answer, ScriptedHub
from tests.support.ports import free_port
from workers.hub.client import Hub
from workers.hub.session import hub_errors, retry_after


@pytest.mark.parametrize(
    "body", [b"<html>a login page</html>", b"[]", b'{"id": "o/n"}', b'{"id": "o/n", "sha": "../.."}']
)
def test_malformed_answer_is_a_transient_error(scripted_hub: ScriptedHub, scripted: Hub, body: bytes):
    scripted_hub.answer("/api/models/o/n", Answer(body=body))
    with pytest.raises(HubUnavailable):
        scripted.resolve("o/n")


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (401, {"X-Error-Code": "RepoNotFound"}, RepoNotFound),
        (401, {}, GatedRepo),
        (403, {}, GatedRepo),
        (403, {"X-Error-Code": "GatedRepo"}, GatedRepo),
        (403, {"X-Error-Message": "Access to this resource is disabled."}, RepoNotFound),
        (404, {}, RepoNotFound),
        (410, {}, RepoNotFound),
        (418, {}, HubUnavailable),
        (500, {}, HubUnavailable),
        (503, {}, HubUnavailable),
    ],
)
def test_status_raises_its_error_class(
    scripted_hub: ScriptedHub, scripted: Hub, status: int, headers: dict[str, str], error: type[CatalogError]
):
    scripted_hub.answer("/api/models/o/n", Answer(status, headers))
    with pytest.raises(error):
        scripted.resolve("o/n")


def test_429_is_raised_at_once_with_its_retry_after(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.answer("/api/models/o/n", Answer(429, {"Retry-After": "120"}))
    with pytest.raises(HubRateLimited) as caught:
        scripted.resolve("o/n")
    assert caught.value.retry_after == 120.0
    assert len(scripted_hub.requests) == 1


def test_silent_hub_times_out(scripted_hub: ScriptedHub, impatient: Hub):
    scripted_hub.answer("/api/models/o/n", Answer(hangs=True))
    with pytest.raises(HubUnavailable, match="No answer"):
        impatient.resolve("o/n")
    assert len(scripted_hub.requests) == 1


def test_closed_kept_alive_connection_is_replaced(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.script_listing("o/n", {"config.json": 1})
    scripted_hub.connections_to_drop = 1
    assert scripted.resolve("o/n").repo_id == "o/n"


def test_hub_that_closes_two_connections_is_unavailable(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.script_listing("o/n", {"config.json": 1})
    scripted_hub.connections_to_drop = 2
    with pytest.raises(HubUnavailable, match="No answer"):
        scripted.resolve("o/n")


def test_hub_that_is_down_is_unavailable(tmp_path: Path):
    with pytest.raises(HubUnavailable, match="No answer"):
        make_hub(f"http://127.0.0.1:{free_port()}", tmp_path).resolve("o/n")


def test_token_is_sent_and_the_environment_is_ignored(
    scripted_hub: ScriptedHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", "another-token")
    scripted_hub.script_listing("o/n", {"config.json": 1})
    limits = {"timeout": 5.0, "max_file_bytes": 100, "max_repo_files": 100}
    Hub(scripted_hub.url, "ours", tmp_path, **limits).resolve("o/n")
    Hub(scripted_hub.url, None, tmp_path, **limits).resolve("o/n")
    sent = [headers.get("Authorization", headers.get("authorization")) for _, _, headers in scripted_hub.requests]
    assert sent == ["Bearer ours", None]


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full here")
def test_full_disk_is_disk_full():
    with pytest.raises(DiskFull), hub_errors("o/n"), open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")


def test_local_error_is_not_translated():
    with pytest.raises(PermissionError), hub_errors("o/n"):
        raise PermissionError(13, "Permission denied")


def test_gated_repo_error_says_what_to_do(scripted_hub: ScriptedHub, scripted: Hub):
    scripted_hub.script_listing("o/n", dict.fromkeys(ADAPTER, 1))
    scripted_hub.answer("/o/n/resolve/", Answer(403, {"X-Error-Code": "GatedRepo"}))
    snapshot = scripted.resolve("o/n")
    with pytest.raises(GatedRepo, match="HF_TOKEN"):
        scripted.fetch_finetune(snapshot)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "30"}, 30),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"RateLimit": '"api";r=3;t=55'}, None),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_from_the_headers(headers: dict[str, str], seconds: float | None):
    assert retry_after(httpx2.Headers(headers)) == seconds


@pytest.mark.parametrize(("ahead", "seconds"), [(600, 600), (-600, 0)])
def test_retry_after_may_be_a_date(ahead: float, seconds: float):
    date = formatdate(time.time() + ahead, usegmt=True)
    assert retry_after(httpx2.Headers({"Retry-After": date})) == pytest.approx(seconds, abs=60)


def test_token_with_invalid_characters_is_rejected_and_not_repeated(scripted: Hub):
    with pytest.raises(CatalogError) as refused:
        scripted.with_token(SecretStr("hf_swordfish\n")).resolve("o/n")
    assert "swordfish" not in str(refused.value)
