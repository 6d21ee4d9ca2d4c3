from __future__ import annotations

import time

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from catalog.auth.hub_tokens import TokenBox, parse_token
from catalog.errors import HubTokenExpired, HubTokensDisabled, HubTokenUnreadable, InvalidHubToken, Misconfigured

TOKEN = SecretStr("hf_recognizable")


def new_key() -> str:
    return Fernet.generate_key().decode()


def box(*keys: str, max_age: float = 60) -> TokenBox:
    return TokenBox(SecretStr(",".join(keys)), max_age)


def test_sealed_token_opens_for_its_submitter():
    tokens = box(new_key())
    sealed = tokens.seal(TOKEN, "me")
    assert b"recognizable" not in sealed
    assert tokens.open(sealed, "me") == TOKEN


@pytest.mark.parametrize("other", ["you", None])
def test_sealed_token_does_not_open_for_another_submitter(other: str | None):
    tokens = box(new_key())
    with pytest.raises(HubTokenUnreadable):
        tokens.open(tokens.seal(TOKEN, "me"), other)


def test_key_is_rotated_by_prepending_the_new_one():
    old, new = new_key(), new_key()
    sealed_with_old = box(old).seal(TOKEN, "me")
    both = box(new, old)
    assert both.open(sealed_with_old, "me") == TOKEN
    assert box(new).open(both.seal(TOKEN, "me"), "me") == TOKEN
    with pytest.raises(HubTokenUnreadable):
        box(new).open(sealed_with_old, "me")


def test_old_or_deleted_token_is_expired(monkeypatch: pytest.MonkeyPatch):
    tokens = box(new_key(), max_age=10)
    sealed, now = tokens.seal(TOKEN, "me"), time.time()
    with pytest.raises(HubTokenExpired):
        tokens.open(None, "me")
    monkeypatch.setattr(time, "time", lambda: now + 12)
    with pytest.raises(HubTokenExpired):
        tokens.open(sealed, "me")


@pytest.mark.parametrize("keys", [None, SecretStr(""), SecretStr(" , ")])
def test_tokens_are_disabled_without_a_key(keys: SecretStr | None):
    sealed = box(new_key()).seal(TOKEN, "me")
    with pytest.raises(HubTokensDisabled):
        TokenBox(keys).seal(TOKEN, "me")
    with pytest.raises(HubTokenUnreadable):
        TokenBox(keys).open(sealed, "me")


@pytest.mark.parametrize("key", ["swordfish", "c3dvcmRmaXNo", "swordfish" * 5])
def test_invalid_key_is_rejected_and_not_in_the_error(key: str):
    with pytest.raises(Misconfigured) as raised:
        box(key)
    assert "swordfish" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("text", ["", " ", "two words", "line\nbreak", "hf_ä", "hf_\x00", "x" * 501])
def test_invalid_token_is_rejected_and_not_in_the_error(text: str):
    with pytest.raises(InvalidHubToken) as raised:
        parse_token(text)
    assert not text.strip() or text not in str(raised.value)


def test_token_is_not_in_its_repr():
    token = parse_token(" hf_recognizable\n")
    assert token.get_secret_value() == "hf_recognizable"
    assert "recognizable" not in f"{token} {token!r} {box(new_key())!r}"
