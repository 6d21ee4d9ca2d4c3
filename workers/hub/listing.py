"""The Hub's lists of models, page by page, and single repos without their files."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from huggingface_hub import HfApi
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from catalog.errors import CatalogError, HubUnavailable, RepoGated, RepoNotFound
from catalog.hub_sync.crawls import PAGE, Page
from catalog.hub_sync.repository.listings import Listed
from workers.hub.metadata import listed
from workers.hub.rate_limits import HubLimits
from workers.hub.session import hub_errors, one_try

EXPAND = (
    "author", "cardData", "createdAt", "disabled", "downloads", "lastModified", "likes", "private", "safetensors",
    "sha", "tags", "usedStorage",
)  # fmt: skip

log = logging.getLogger(__name__)


class HubListing:
    """The lists of the Hub at `endpoint`. Raises `HubUnavailable`, `HubRateLimited`, `RepoNotFound`, `RepoGated`."""

    def __init__(self, endpoint: str, token: str | None, *, timeout: float, limits: HubLimits | None = None) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._token: str | bool = token or False  # False, not None: None would look for a token on this machine
        self._api = HfApi(endpoint=self._endpoint, token=self._token)
        one_try(timeout, limits or HubLimits())

    def first(self, filters: dict[str, str], since: datetime | None) -> str:
        """The URL of a list's first page. A walk through all goes by the date of creation, where nothing moves while
        one walks; one that wants what changed `since`, by the date of the last change, the newest first.
        """
        order = "createdAt" if since is None else "lastModified"
        query = [*filters.items(), ("sort", order), ("limit", str(PAGE)), *(("expand", each) for each in EXPAND)]
        return f"{self._endpoint}/api/models?{urlencode(query)}"

    def page(self, url: str) -> Page:
        response = self._get(url, "the list of models")
        with hub_errors("the list of models"):
            entries = response.json()
            if not isinstance(entries, list):
                raise ValueError("it is no list")
        repos = [each for each in map(_read, entries) if each is not None]
        cursor = response.links.get("next", {}).get("url")
        return Page(tuple(repos), cursor, unread=len(entries) - len(repos))

    def collection(self, slug: str) -> tuple[str, ...]:
        """The models in a collection."""
        with hub_errors(f"the collection {slug}"):
            found = self._api.get_collection(slug)
        return tuple(item.item_id for item in found.items if item.item_type == "model")

    def repo(self, repo_id: str) -> Listed | None:
        """One repo; None where it is gone, private, gated, or nothing that can be read."""
        query = urlencode([("expand", each) for each in EXPAND])
        try:
            response = self._get(f"{self._endpoint}/api/models/{quote(repo_id)}?{query}", repo_id)
        except (RepoNotFound, RepoGated):
            return None
        with hub_errors(repo_id):
            return _read(response.json())

    def _get(self, url: str, what: str) -> Any:
        if not url.startswith(f"{self._endpoint}/"):  # a token is sent along
            raise HubUnavailable(f"The Hub's next page is at another address: {url[:200]}.")
        with hub_errors(what):
            response = get_session().get(url, headers=build_hf_headers(token=self._token))
            hf_raise_for_status(response)
            return response


def _read(item: Any) -> Listed | None:
    """None for an entry that cannot be used: one odd repo does not keep the others back."""
    try:
        return listed(item)
    except (CatalogError, ValueError, TypeError, KeyError, AttributeError) as error:
        name = item.get("id") if isinstance(item, dict) else None
        log.warning("the Hub's entry of %.200r cannot be used: %s", name, error)
        return None
