from __future__ import annotations

import logging
from pathlib import Path

import pytest
from pydantic import SecretStr

from catalog.errors import HubTokenInvalid, HubTokenRejected, RepoNotFound, RevisionNotFound
from tests.support.hub_client import ADAPTER, files_in, make_hub
from tests.support.hub_lists import HubLists, repo_entry
from tests.support.hub_server import INVALID_TOKEN, Answer, ScriptedHub
from workers.hub import service_token
from workers.hub.client import Hub
from workers.hub.listing import HubListing
from workers.hub.session import is_service_token_rejected

PRIVATE, GATED = {"private": True}, {"gated": "auto"}


@pytest.fixture
def rejecting_hub(scripted_hub: ScriptedHub) -> ScriptedHub:
    """A hub with the public repo o/n that accepts no token but "valid"."""
    scripted_hub.publish("o/n", ADAPTER)
    scripted_hub.valid_tokens = {"valid"}
    return scripted_hub


@pytest.fixture
def hub(rejecting_hub: ScriptedHub, tmp_path: Path) -> Hub:
    return make_hub(rejecting_hub.url, tmp_path, "expired")


def sent_tokens(hub: ScriptedHub) -> list[str | None]:
    return [headers.get("Authorization", headers.get("authorization")) for _, _, headers in hub.requests]


@pytest.mark.parametrize(
    "refusal",
    [
        {"X-Error-Message": INVALID_TOKEN},
        {"X-Error-Message": 'User Access Token "ci" is expired'},
        {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"},
        {},
    ],
)
def test_public_repo_is_read_without_a_rejected_token(rejecting_hub: ScriptedHub, hub: Hub, refusal: dict[str, str]):
    rejecting_hub.token_refusal = Answer(401, refusal)
    folder = hub.fetch_finetune(hub.resolve("o/n"))
    assert files_in(folder) == set(ADAPTER)
    assert is_service_token_rejected()


def test_token_that_expires_during_a_job_does_not_stop_its_downloads(rejecting_hub: ScriptedHub, tmp_path: Path):
    hub = make_hub(rejecting_hub.url, tmp_path, "valid")
    snapshot = hub.resolve("o/n")
    rejecting_hub.valid_tokens = set()
    assert files_in(hub.fetch_finetune(snapshot)) == set(ADAPTER)


@pytest.mark.parametrize(("info", "gated"), [(PRIVATE, False), (GATED, True)])
def test_repo_that_is_not_public_waits_for_a_valid_token(
    rejecting_hub: ScriptedHub, hub: Hub, info: dict[str, object], gated: bool
):
    rejecting_hub.publish("o/secret", ADAPTER, info=info)
    rejecting_hub.restrict("o/secret", "valid", gated=gated)
    with pytest.raises(HubTokenInvalid, match=r"o/secret .* HF_TOKEN") as invalid:
        hub.resolve("o/secret")
    assert invalid.value.transient
    assert "expired token" not in str(invalid.value)


def test_missing_revision_of_a_public_repo_is_not_blamed_on_the_token(rejecting_hub: ScriptedHub, hub: Hub):
    rejecting_hub.answer("/api/models/o/n/revision/gone", Answer(404, {"X-Error-Code": "RevisionNotFound"}))
    with pytest.raises(RevisionNotFound):
        hub.resolve("o/n", "gone")


def test_repo_that_a_valid_token_may_not_read_does_not_make_the_token_invalid(
    scripted_hub: ScriptedHub, tmp_path: Path
):
    scripted_hub.restrict("o/secret", "another")
    with pytest.raises(RepoNotFound):
        make_hub(scripted_hub.url, tmp_path, "valid").resolve("o/secret")
    assert not is_service_token_rejected()


def test_rejected_token_is_not_sent_with_every_request(rejecting_hub: ScriptedHub, hub: Hub):
    for _ in range(3):
        hub.resolve("o/n")
    assert sent_tokens(rejecting_hub) == ["Bearer expired", None, None, None]


def test_rejection_ends_once_the_hub_accepts_the_token(
    rejecting_hub: ScriptedHub, hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(service_token, "PROBE_INTERVAL", 0)
    hub.resolve("o/n")
    assert is_service_token_rejected()
    rejecting_hub.valid_tokens = {"expired"}
    hub.resolve("o/n")
    assert not is_service_token_rejected()


def test_rejection_is_logged_once(rejecting_hub: ScriptedHub, hub: Hub, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.ERROR):
        hub.resolve("o/n")
        hub.resolve("o/n")
    [record] = caplog.records
    assert "hub_token_invalid" in record.message
    assert "expired" not in record.message


@pytest.mark.parametrize("message", [INVALID_TOKEN, 'User Access Token "mine" is expired', ""])
def test_invalid_token_of_a_job_is_a_refusal_that_names_it(rejecting_hub: ScriptedHub, hub: Hub, message: str):
    rejecting_hub.token_refusal = Answer(401, {"X-Error-Message": message} if message else {})
    with pytest.raises(HubTokenRejected, match="token that was sent with the submission of o/n"):
        hub.with_token(SecretStr("theirs")).resolve("o/n")
    assert not is_service_token_rejected()


@pytest.mark.parametrize("token", ["“hf_quoted”", "hf_two\nlines"])
def test_token_that_no_header_can_have_is_rejected_like_any_other(
    rejecting_hub: ScriptedHub, tmp_path: Path, token: str
):
    assert make_hub(rejecting_hub.url, tmp_path, token).resolve("o/n").repo_id == "o/n"
    assert is_service_token_rejected()


def test_lists_are_read_without_a_rejected_token(hub_lists: HubLists):
    hub_lists.add(repo_entry(1))
    hub_lists.valid_tokens = set()
    listing = HubListing(hub_lists.url, "expired", timeout=5)
    page = listing.get_page(listing.first_url({}, None))
    assert [repo.repo_id for repo in page.repos] == ["maker/m1"]
    assert listing.get_repo("maker/m1") is not None
