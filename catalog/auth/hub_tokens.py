"""Users' Hub tokens, encrypted from the request until the worker calls the Hub.

The encrypted text contains the submitter, so a token that is copied to another submitter's job cannot be opened.
"""

from __future__ import annotations

import re
import time

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from catalog.errors import HubTokenExpired, HubTokensDisabled, HubTokenUnreadable, InvalidHubToken, Misconfigured

DAY = 86_400.0  # seconds

_TOKEN = re.compile(r"[\x21-\x7e]{1,500}")  # what a header can carry: anything else would be quoted in an error


def parse_token(text: str) -> SecretStr:
    """Parse a token from a request or stdin. Raises `InvalidHubToken`, whose message does not contain the text."""
    if not _TOKEN.fullmatch(text.strip()):
        raise InvalidHubToken("Not a Hugging Face token. Send the token itself: printable ASCII without spaces.")
    return SecretStr(text.strip())


class TokenBox:
    """Encrypts tokens with the first of the `keys`, and decrypts with any of them tokens up to `max_age` seconds old.

    `keys` are Fernet keys separated by commas; with None, tokens are rejected. Raises `Misconfigured` for invalid keys.
    """

    def __init__(self, keys: SecretStr | None = None, max_age: float = DAY) -> None:
        self._max_age = max_age
        fernet_keys = [key.strip() for key in keys.get_secret_value().split(",") if key.strip()] if keys else []
        try:
            self._fernet = MultiFernet([Fernet(key) for key in fernet_keys]) if fernet_keys else None
        except ValueError:
            raise Misconfigured(
                "DELTADEX_TOKEN_KEY is not a Fernet key (32 bytes in URL-safe base64, see docs/operations.md)."
            ) from None  # the cause may quote the key

    def seal(self, token: SecretStr, submitter: str) -> bytes:
        """Encrypt a token for a submitter. Raises `HubTokensDisabled` if no key is set."""
        if self._fernet is None:
            raise HubTokensDisabled("Hub tokens are disabled: set DELTADEX_TOKEN_KEY for API and workers.")
        return self._fernet.encrypt(f"{submitter}\n{token.get_secret_value()}".encode())

    def open(self, sealed: bytes | None, submitter: str | None) -> SecretStr:
        """Decrypt a job's token. Raises `HubTokenExpired` if it was deleted or is too old, and `HubTokenUnreadable`."""
        if sealed is None:
            raise token_expired()
        if self._fernet is None:
            raise HubTokenUnreadable("This worker has no DELTADEX_TOKEN_KEY: set it to the key of the API.")
        try:
            owner, _, token = self._fernet.decrypt(sealed).decode().partition("\n")
            sealed_at = self._fernet.extract_timestamp(sealed)
        except InvalidToken:
            raise HubTokenUnreadable(
                "The token was encrypted with a key that is not in this worker's DELTADEX_TOKEN_KEY. Add the API's key."
            ) from None
        if owner != submitter:
            raise HubTokenUnreadable("The token was encrypted for another submitter.")
        if time.time() - sealed_at > self._max_age:
            raise token_expired()
        return SecretStr(token)


def token_expired() -> HubTokenExpired:
    return HubTokenExpired("The Hub token of this job has expired. Submit the model again with the token.")
