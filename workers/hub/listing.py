"""The Hub's lists of models, page by page, and the listing entries of single repos."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from huggingface_hub import HfApi
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from catalog.errors import CatalogError, GatedRepo, HubUnavailable, RepoNotFound
from catalog.hub_sync.crawls import PAGE_SIZE, ListingPage
from catalog.hub_sync.repository.listings import ListedRepo
from workers.hub.metadata import parse_entry
from workers.hub.rate_limits import HubLimits
from workers.hub.service_token import sendable
from workers.hub.session import hub_errors, install_client

EXPANDED_FIELDS = (
    "author", "baseModels", "cardData", "createdAt", "disabled", "downloads", "gated", "lastModified", "likes",
    "private", "safetensors", "sha", "tags", "usedStorage",
)  # fmt: skip

HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")  # in links that a mirror passes on

log = logging.getLogger(__name__)


class HubListing:
    """Reads the lists of the Hub at `endpoint`.

    Raises `HubUnavailable`, `HubRateLimited`, `RepoNotFound`, `GatedRepo`.
    """

    def __init__(self, endpoint: str, token: str | None, *, timeout: float, limits: HubLimits | None = None) -> None:
        self._endpoint = endpoint.rstrip("/")
        token = sendable(token) if token else None
        self._token: str | bool = token or False  # None would make the library look for a stored token
        self._api = HfApi(endpoint=self._endpoint, token=self._token)
        install_client(timeout, limits or HubLimits(), token)

    def first_url(self, filters: dict[str, str], since: datetime | None) -> str:
        """The URL of a list's first page.

        Without `since`, the order is the date of creation, which does not change during a crawl. With it, the order is
        the date of the last change, newest first.
        """
        order = "createdAt" if since is None else "lastModified"
        query = [
            *filters.items(),
            ("sort", order),
            ("limit", str(PAGE_SIZE)),
            *(("expand", entry) for entry in EXPANDED_FIELDS),
        ]
        return f"{self._endpoint}/api/models?{urlencode(query)}"

    def get_page(self, url: str) -> ListingPage:
        """One page of a list, with the URL of the next one as its cursor."""
        response = self._get(url, "the list of models")
        with hub_errors("the list of models"):
            entries = response.json()
            if not isinstance(entries, list):
                raise ValueError("it is not a list")
        repos = [entry for entry in map(_entry_or_none, entries) if entry is not None]
        cursor = self._next_url(url, response.links.get("next", {}).get("url"))
        return ListingPage(tuple(repos), cursor, unusable=len(entries) - len(repos))

    def _next_url(self, url: str, link: str | None) -> str | None:
        """The URL of the page after `url`. A mirror may pass on the Hub's own link, or a relative one, or one with the
        scheme that it sees behind a proxy: each is requested at the endpoint. Another host's is left as it is.
        """
        if not link:
            return None
        target, endpoint = urlsplit(urljoin(url, link)), urlsplit(self._endpoint)
        if target.geturl().startswith(f"{self._endpoint}/") or target.netloc not in (endpoint.netloc, *HUB_HOSTS):
            return target.geturl()
        path = target.path.removeprefix(endpoint.path) if target.netloc == endpoint.netloc else target.path
        return f"{self._endpoint}{path}?{target.query}"

    def get_collection(self, slug: str) -> tuple[str, ...]:
        """Repo ids of the models in a collection."""
        with hub_errors(f"the collection {slug}"):
            collection_info = self._api.get_collection(slug)
        return tuple(item.item_id for item in collection_info.items if item.item_type == "model")

    def get_repo(self, repo_id: str) -> ListedRepo | None:
        """The entry of one repo; None if it is deleted, private, gated or unreadable."""
        query = urlencode([("expand", entry) for entry in EXPANDED_FIELDS])
        try:
            response = self._get(f"{self._endpoint}/api/models/{quote(repo_id)}?{query}", repo_id)
        except (RepoNotFound, GatedRepo):
            return None
        with hub_errors(repo_id):
            return _entry_or_none(response.json())

    def _get(self, url: str, subject: str) -> Any:
        if not url.startswith(f"{self._endpoint}/"):  # the request carries the token
            raise HubUnavailable(f"The Hub's next page is at another host: {url[:200]}.")
        with hub_errors(subject):
            response = get_session().get(url, headers=build_hf_headers(token=self._token))
            hf_raise_for_status(response)
            return response


def _entry_or_none(item: Any) -> ListedRepo | None:
    """An entry, or None if it cannot be read: one malformed entry must not stop the crawl."""
    try:
        return parse_entry(item)
    except (CatalogError, ValueError, TypeError, KeyError, AttributeError) as error:
        name = item.get("id") if isinstance(item, dict) else None
        log.warning("skipping the Hub's entry for %.200r: %s", name, error)
        return None
