"""The tokens that users send along with a submission: sealed from the request until the worker asks the Hub.

What is sealed names its submitter, so a sealed token that is put on somebody else's job does not open.
"""

from __future__ import annotations

import re
import time

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from catalog.errors import Misconfigured, TokenExpired, TokenMalformed, TokensOff, TokenUnreadable

DAY = 86_400.0  # seconds

_TOKEN = re.compile(r"[\x21-\x7e]{1,500}")  # what a header can carry: anything else would be quoted in an error


def read_token(text: str) -> SecretStr:
    """A token as somebody sent it. Raises `TokenMalformed`, which does not repeat it."""
    if not _TOKEN.fullmatch(text.strip()):
        raise TokenMalformed("That is no token of the Hub: it is one word of printable ASCII.")
    return SecretStr(text.strip())


class TokenBox:
    """Seals with the first of the `keys` (Fernet's, commas between them; None: tokens are refused) and opens with any
    of them what is at most `max_age` seconds old. Raises `Misconfigured` for a key that is none.
    """

    def __init__(self, keys: SecretStr | None = None, max_age: float = DAY) -> None:
        self._max_age = max_age
        given = [key.strip() for key in keys.get_secret_value().split(",") if key.strip()] if keys else []
        try:
            self._fernet = MultiFernet([Fernet(key) for key in given]) if given else None
        except ValueError:
            raise Misconfigured(
                "DELTADEX_TOKEN_KEY is no Fernet key: 32 bytes in URL-safe base64 (docs/operations.md)."
            ) from None  # the cause may quote the key

    def seal(self, token: SecretStr, submitter: str) -> bytes:
        """Raises `TokensOff` where no key is set."""
        if self._fernet is None:
            raise TokensOff("Tokens are not taken here: set DELTADEX_TOKEN_KEY, the same for API and workers.")
        return self._fernet.encrypt(f"{submitter}\n{token.get_secret_value()}".encode())

    def open(self, sealed: bytes | None, submitter: str | None) -> SecretStr:
        """Raises `TokenExpired` for one that was forgotten or is too old, and `TokenUnreadable`."""
        if sealed is None:
            raise expired()
        if self._fernet is None:
            raise TokenUnreadable("This worker has no DELTADEX_TOKEN_KEY: give it the API's.")
        try:
            owner, _, token = self._fernet.decrypt(sealed).decode().partition("\n")
            sealed_at = self._fernet.extract_timestamp(sealed)
        except InvalidToken:
            raise TokenUnreadable(
                "The token was sealed with a key that is not in this worker's DELTADEX_TOKEN_KEY."
            ) from None
        if owner != submitter:
            raise TokenUnreadable("The token was sealed for another submitter.")
        if time.time() - sealed_at > self._max_age:
            raise expired()
        return SecretStr(token)


def expired() -> TokenExpired:
    return TokenExpired("The token that came with this job was kept for too long and is forgotten: submit it again.")
