from __future__ import annotations

import pytest

from catalog.errors import HubUnavailable
from catalog.hub_sync.crawls import PAGE_SIZE
from tests.support.hub_lists import HubLists, repo_entry
from workers.hub.listing import HubListing


@pytest.fixture
def listing(hub_lists: HubLists) -> HubListing:
    """A hub with two pages of models."""
    hub_lists.add(*(repo_entry(number) for number in range(PAGE_SIZE + 1)))
    return HubListing(hub_lists.url, "ours", timeout=5)


@pytest.mark.parametrize("link_base", [None, "https://huggingface.co", "https://hf.co", "", "HTTPS"])
def test_next_page_is_requested_at_the_endpoint(hub_lists: HubLists, listing: HubListing, link_base: str | None):
    hub_lists.link_base = hub_lists.url.replace("http:", "https:") if link_base == "HTTPS" else link_base
    first = listing.get_page(listing.first_url({}, None))
    assert first.cursor is not None
    assert first.cursor.startswith(f"{hub_lists.url}/api/models?")
    assert len(listing.get_page(first.cursor).repos) == 1


@pytest.mark.parametrize("host", ["https://elsewhere.test", "https://huggingface.co.elsewhere.test"])
def test_next_page_at_another_host_is_refused(hub_lists: HubLists, listing: HubListing, host: str):
    hub_lists.link_base = host
    first = listing.get_page(listing.first_url({}, None))
    assert first.cursor is not None
    with pytest.raises(HubUnavailable, match="another host"):
        listing.get_page(first.cursor)


def test_gated_repos_and_the_bases_that_the_hub_resolved_are_listed(hub_lists: HubLists):
    base = {"relation": "adapter", "models": [{"_id": "1", "id": "pico/base"}]}
    hub_lists.add(repo_entry(1, gated="manual", cardData={}, baseModels=base), repo_entry(2, gated=False))
    listing = HubListing(hub_lists.url, None, timeout=5)
    url = listing.first_url({}, None)
    repos = {repo.repo_id: repo for repo in listing.get_page(url).repos}
    assert (repos["maker/m1"].gated, repos["maker/m1"].base) == (True, "pico/base")
    assert (repos["maker/m2"].gated, repos["maker/m2"].base) == (False, "pico/llama")
    assert {"expand=gated", "expand=baseModels"} <= set(url.split("&"))
