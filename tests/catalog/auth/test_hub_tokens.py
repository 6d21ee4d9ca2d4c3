from __future__ import annotations

import time

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from catalog.auth.hub_tokens import TokenBox, read_token
from catalog.errors import Misconfigured, TokenExpired, TokenMalformed, TokensOff, TokenUnreadable

TOKEN = SecretStr("hf_recognisable")


def new_key() -> str:
    return Fernet.generate_key().decode()


def box(*keys: str, max_age: float = 60) -> TokenBox:
    return TokenBox(SecretStr(",".join(keys)), max_age)


def test_what_is_sealed_opens_for_its_submitter():
    tokens = box(new_key())
    sealed = tokens.seal(TOKEN, "me")
    assert b"recognisable" not in sealed
    assert tokens.open(sealed, "me") == TOKEN


@pytest.mark.parametrize("other", ["you", None])
def test_a_sealed_token_on_somebody_elses_job_does_not_open(other: str | None):
    tokens = box(new_key())
    with pytest.raises(TokenUnreadable):
        tokens.open(tokens.seal(TOKEN, "me"), other)


def test_keys_are_exchanged_by_putting_the_new_one_before_the_old_one():
    old, new = new_key(), new_key()
    sealed_before = box(old).seal(TOKEN, "me")
    both = box(new, old)
    assert both.open(sealed_before, "me") == TOKEN
    assert box(new).open(both.seal(TOKEN, "me"), "me") == TOKEN
    with pytest.raises(TokenUnreadable):
        box(new).open(sealed_before, "me")


def test_a_token_that_is_too_old_or_forgotten_is_expired(monkeypatch: pytest.MonkeyPatch):
    tokens = box(new_key(), max_age=10)
    sealed, now = tokens.seal(TOKEN, "me"), time.time()
    with pytest.raises(TokenExpired):
        tokens.open(None, "me")
    monkeypatch.setattr(time, "time", lambda: now + 12)
    with pytest.raises(TokenExpired):
        tokens.open(sealed, "me")


@pytest.mark.parametrize("keys", [None, SecretStr(""), SecretStr(" , ")])
def test_without_a_key_tokens_are_off(keys: SecretStr | None):
    sealed = box(new_key()).seal(TOKEN, "me")
    with pytest.raises(TokensOff):
        TokenBox(keys).seal(TOKEN, "me")
    with pytest.raises(TokenUnreadable):
        TokenBox(keys).open(sealed, "me")


@pytest.mark.parametrize("key", ["swordfish", "c3dvcmRmaXNo", "swordfish" * 5])
def test_a_key_that_is_none_is_refused_and_not_repeated(key: str):
    with pytest.raises(Misconfigured) as refused:
        box(key)
    assert "swordfish" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("text", ["", " ", "two words", "line\nbreak", "hf_ä", "hf_\x00", "x" * 501])
def test_what_no_header_can_carry_is_no_token_and_is_not_repeated(text: str):
    with pytest.raises(TokenMalformed) as refused:
        read_token(text)
    assert not text.strip() or text not in str(refused.value)


def test_a_token_does_not_show_itself():
    token = read_token(" hf_recognisable\n")
    assert token.get_secret_value() == "hf_recognisable"
    assert "recognisable" not in f"{token} {token!r} {box(new_key())!r}"
