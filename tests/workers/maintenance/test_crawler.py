from __future__ import annotations

import pytest
from sqlalchemy import func, select, update

from catalog.database import Database
from catalog.hub_sync import crawls as crawl_service
from catalog.hub_sync.crawls import PAGE, Limits, Source
from catalog.hub_sync.repository import crawls
from catalog.jobs.repository import jobs
from catalog.models.repository import models
from catalog.tables import Crawl, CrawlState, Job, JobState, Model, ModelState
from tests.support import catalog as entries
from tests.support.hub_lists import HubLists, repo
from workers.hub.listing import HubListing
from workers.maintenance.crawler import Crawler

BASE = Source(base="pico/llama", relations=("adapter",))


@pytest.fixture
def crawler(database: Database, hub_lists: HubLists) -> Crawler:
    return Crawler(database, HubListing(hub_lists.url, None, timeout=5), queue=100_000)


def run(crawler: Crawler) -> None:
    while crawler.step():
        pass


def look(database: Database, crawl: Crawl) -> Crawl:
    with database.transaction() as session:
        return crawls.get(session, crawl.id)


def queued(database: Database) -> list[str]:
    with database.transaction() as session:
        statement = select(Model.repo_id).join(Job).where(Job.state == JobState.QUEUED).order_by(Model.repo_id)
        return list(session.scalars(statement))


def end_jobs(database: Database, state: JobState = JobState.DONE) -> None:
    with database.transaction() as session:
        session.execute(update(Job).values(state=state))


def test_every_adapter_of_a_base_is_queued_over_all_pages(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(*(repo(number) for number in range(PAGE * 2 + 5)), repo(999, base="other/base"))
    crawl = crawl_service.start(database, BASE, Limits())

    run(crawler)

    found = look(database, crawl)
    assert (found.state, found.pages, found.listed, found.queued) == (CrawlState.DONE, 3, PAGE * 2 + 5, PAGE * 2 + 5)
    assert len(queued(database)) == PAGE * 2 + 5
    assert set(hub_lists.requests.values()) == {1}


def test_adapters_and_fine_tunes_are_two_lists(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo(1), repo(2, tags=["base_model:finetune:pico/llama"]))
    crawl = crawl_service.start(database, Source(base="pico/llama"), Limits())

    run(crawler)

    assert queued(database) == ["maker/m1", "maker/m2"]
    assert look(database, crawl).pages == 2


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (Source(owner="maker"), ["maker/m1", "maker/m2"]),
        (Source(tag="medical"), ["maker/m2", "other/m3"]),
        (Source(collection="x/mine-1"), ["maker/m1", "other/m3"]),
        (Source(ids=("other/m3", "maker/m2", "no/body")), ["maker/m2", "other/m3"]),
    ],
)
def test_a_crawl_takes_what_its_source_names(
    database: Database, hub_lists: HubLists, crawler: Crawler, source: Source, expected: list[str]
):
    hub_lists.add(repo(1), repo(2, tags=["medical"]), repo(3, owner="other", tags=["medical"]))
    hub_lists.collections["x/mine-1"] = ["maker/m1", "other/m3"]
    crawl = crawl_service.start(database, source, Limits())

    run(crawler)

    assert queued(database) == expected
    assert look(database, crawl).state == CrawlState.DONE


def test_metadata_comes_with_the_page(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo(7))
    crawl_service.start(database, BASE, Limits())

    run(crawler)

    with database.transaction() as session:
        model = models.get(session, "maker/m7")
    assert (model.licence, model.datasets, model.languages) == ("mit", ["a/b"], ["en"])
    assert (model.downloads, model.likes, model.hub_id) == (7, 1, f"{7:024x}")
    assert model.hub_created_at is not None
    assert model.hub_updated_at is not None


def test_the_base_that_a_card_names_is_the_hint_of_the_job(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo(1))
    crawl_service.start(database, BASE, Limits())

    run(crawler)

    with database.transaction() as session:
        assert jobs.page(session)[0].base_hint == "pico/llama"


def test_a_second_crawl_queues_only_what_has_a_new_commit(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo(1), repo(2))
    crawl_service.start(database, BASE, Limits())
    run(crawler)
    end_jobs(database)
    hub_lists.add(repo(2, commit=1))

    again = crawl_service.start(database, BASE, Limits())
    run(crawler)

    assert queued(database) == ["maker/m2"]
    assert (look(database, again).queued, look(database, again).unchanged) == (1, 1)


def test_what_is_indexed_at_that_commit_is_not_queued(database: Database, hub_lists: HubLists, crawler: Crawler):
    entries.put(database, "maker/m1", [1, 2], commit="one")
    hub_lists.add(repo(1, sha=entries.sha("one")))
    crawl_service.start(database, BASE, Limits())

    run(crawler)

    assert queued(database) == []


def test_what_failed_is_tried_again_only_with_a_new_commit(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo(1))
    for expected in (["maker/m1"], []):
        crawl_service.start(database, BASE, Limits())
        run(crawler)
        assert queued(database) == expected
        end_jobs(database, JobState.FAILED)


def test_a_dry_run_counts_and_stores_nothing(database: Database, hub_lists: HubLists, crawler: Crawler):
    weights = {"parameters": {"F32": 100}, "total": 100}
    hub_lists.add(repo(1), repo(2, safetensors=weights), repo(3, usedStorage=None))
    crawl = crawl_service.start(database, BASE, Limits(dry_run=True))

    run(crawler)

    found = look(database, crawl)
    assert (found.queued, found.size, found.sized) == (3, 1_400, 2)
    with database.transaction() as session:
        estimate = crawl_service.estimate(session, found, 30)
        assert session.execute(select(func.count()).select_from(Model)).scalar_one() == 0
    assert (estimate.size, estimate.measured, estimate.workers) == (2_100, False, 1)
    assert estimate.hours == pytest.approx(
        (3 / crawl_service.ASSUMED_PACE + 2_100 / crawl_service.ASSUMED_BANDWIDTH) / 3600
    )


def test_no_more_are_queued_than_the_limit(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(*(repo(number) for number in range(PAGE + 10)))
    crawl = crawl_service.start(database, BASE, Limits(max_models=PAGE + 3))

    run(crawler)

    assert (look(database, crawl).state, look(database, crawl).queued) == (CrawlState.DONE, PAGE + 3)
    assert len(queued(database)) == PAGE + 3


def test_repos_with_few_downloads_are_left_out(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo(1, downloads=5), repo(2, downloads=50))
    crawl = crawl_service.start(database, BASE, Limits(min_downloads=10))

    run(crawler)

    assert queued(database) == ["maker/m2"]
    assert look(database, crawl).skipped == 1


def test_an_entry_that_cannot_be_used_keeps_no_other_back(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo(1), repo(2, id="no-owner"), repo(3, createdAt="long ago"))
    crawl = crawl_service.start(database, BASE, Limits())

    run(crawler)

    assert queued(database) == ["maker/m1"]
    assert (look(database, crawl).state, look(database, crawl).skipped) == (CrawlState.DONE, 2)


def test_a_crawl_waits_while_the_queue_is_full(database: Database, hub_lists: HubLists):
    hub_lists.add(*(repo(number) for number in range(PAGE * 4)))
    crawler = Crawler(database, HubListing(hub_lists.url, None, timeout=5), queue=PAGE * 2)
    crawl = crawl_service.start(database, BASE, Limits())

    run(crawler)
    assert (len(queued(database)), look(database, crawl).state) == (PAGE * 2, CrawlState.RUNNING)

    end_jobs(database)
    run(crawler)
    assert (len(queued(database)), look(database, crawl).state) == (PAGE * 2, CrawlState.DONE)


def test_a_full_queue_does_not_hold_up_a_dry_run(database: Database, hub_lists: HubLists):
    hub_lists.add(repo(1))
    for number in range(PAGE):
        entries.put_job(database, f"waiting/m{number}")
    crawler = Crawler(database, HubListing(hub_lists.url, None, timeout=5), queue=PAGE)
    held = crawl_service.start(database, BASE, Limits())
    dry = crawl_service.start(database, BASE, Limits(dry_run=True))

    run(crawler)

    assert (look(database, held).pages, look(database, dry).state) == (0, CrawlState.DONE)


def test_crawls_take_turns(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(*(repo(number) for number in range(PAGE * 2)))
    both = [
        crawl_service.start(database, BASE, Limits()),
        crawl_service.start(database, Source(owner="maker"), Limits()),
    ]

    crawler.step()
    crawler.step()

    assert [look(database, each).pages for each in both] == [1, 1]


def test_only_one_process_crawls_at_a_time(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo(1))
    crawl_service.start(database, BASE, Limits())

    with database.transaction() as other:
        assert crawls.try_lead(other)
        assert not crawler.step()

    assert crawler.step()


def test_a_page_that_was_paused_meanwhile_is_dropped_and_asked_for_again(
    database: Database, hub_lists: HubLists, crawler: Crawler
):
    hub_lists.add(*(repo(number) for number in range(PAGE + 1)))
    crawl = crawl_service.start(database, BASE, Limits())
    crawler.step()
    with database.transaction() as session:
        begun = crawls.go_on(session, crawl.id)
    page = crawler.ask(begun)
    crawl_service.pause(database, crawl.id)

    assert not crawl_service.take(database, begun, page)
    run(crawler)
    assert (look(database, crawl).pages, len(queued(database))) == (1, PAGE)

    crawl_service.resume(database, crawl.id)
    run(crawler)
    assert (look(database, crawl).state, len(queued(database))) == (CrawlState.DONE, PAGE + 1)


def test_a_page_is_stored_once(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(*(repo(number) for number in range(PAGE + 1)))
    crawl = crawl_service.start(database, BASE, Limits())
    with database.transaction() as session:
        begun = crawls.go_on(session, crawl.id)
    page = crawler.ask(begun)

    assert crawl_service.take(database, begun, page)
    assert not crawl_service.take(database, begun, page)
    assert look(database, crawl).listed == PAGE


def test_the_hub_asking_to_slow_down_is_obeyed(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo(1))
    hub_lists.refuse.append((429, {"Retry-After": "1000"}))
    crawl = crawl_service.start(database, BASE, Limits())

    run(crawler)

    found = look(database, crawl)
    assert (found.state, found.error_code, found.attempts) == (CrawlState.RUNNING, "hub_rate_limited", 1)
    assert (found.wait_until - found.stepped_at).total_seconds() == pytest.approx(1000, abs=5)


def test_a_crawl_never_fails_for_being_asked_to_slow_down(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo(1))
    hub_lists.refuse.extend([(429, {"Retry-After": "0"})] * 20)
    crawl = crawl_service.start(database, BASE, Limits())

    run(crawler)

    assert look(database, crawl).state == CrawlState.DONE


def test_a_crawl_goes_on_after_the_hub_was_away(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo(1))
    hub_lists.refuse.append((503, {"Retry-After": "0"}))
    crawl = crawl_service.start(database, BASE, Limits())

    run(crawler)

    found = look(database, crawl)
    assert (found.state, found.error_code, found.attempts) == (CrawlState.DONE, None, 0)


def test_what_can_never_be_had_fails_the_crawl_and_resume_tries_again(
    database: Database, hub_lists: HubLists, crawler: Crawler
):
    hub_lists.add(repo(1))
    crawl = crawl_service.start(database, Source(collection="x/none-1"), Limits())
    run(crawler)
    assert (look(database, crawl).state, look(database, crawl).error_code) == (CrawlState.FAILED, "repo_not_found")

    hub_lists.collections["x/none-1"] = ["maker/m1"]
    crawl_service.resume(database, crawl.id)
    run(crawler)

    assert (look(database, crawl).state, queued(database)) == (CrawlState.DONE, ["maker/m1"])


def test_a_page_that_never_comes_fails_the_crawl_in_the_end(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.refuse.extend([(503, {"Retry-After": "0"})] * 20)
    crawl = crawl_service.start(database, BASE, Limits())

    run(crawler)

    assert (look(database, crawl).state, look(database, crawl).error_code) == (CrawlState.FAILED, "hub_unavailable")


def test_a_next_page_at_another_address_is_not_asked_for(database: Database, hub_lists: HubLists, crawler: Crawler):
    crawl = crawl_service.start(database, BASE, Limits())
    with database.transaction() as session:
        crawls.get(session, crawl.id).cursor = "http://127.0.0.1:1/api/models?cursor=1"

    crawler.step()

    assert look(database, crawl).error_code == "hub_unavailable"
    assert not hub_lists.requests


def let_time_pass(database: Database, crawl: Crawl) -> None:
    with database.transaction() as session:
        session.execute(update(Crawl).where(Crawl.id == crawl.id).values(next_at=func.now()))


def test_a_recurring_crawl_asks_only_for_what_changed_since(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(*(repo(number) for number in range(PAGE * 3)))
    crawl = crawl_service.start(database, BASE, Limits(every=3600))
    run(crawler)
    end_jobs(database)
    hub_lists.requests.clear()
    hub_lists.add(repo(5, commit=1, lastModified="2100-01-01T00:00:00.000Z"))
    assert crawl_service.begin_anew(database) == []

    let_time_pass(database, crawl)
    assert crawl_service.begin_anew(database) == [crawl.id]
    run(crawler)

    found = look(database, crawl)
    assert (found.state, found.run, found.listed, found.queued) == (CrawlState.DONE, 2, 1, 1)
    assert queued(database) == ["maker/m5"]
    assert sum(hub_lists.requests.values()) == 1
    assert found.next_at is not None


def test_a_recurring_crawl_that_is_cancelled_does_not_begin_anew(
    database: Database, hub_lists: HubLists, crawler: Crawler
):
    crawl = crawl_service.start(database, BASE, Limits(every=3600))
    run(crawler)

    assert crawl_service.cancel(database, crawl.id).state == CrawlState.CANCELLED
    let_time_pass(database, crawl)
    assert crawl_service.begin_anew(database) == []


def test_a_repo_that_is_listed_as_private_leaves_the_index(database: Database, hub_lists: HubLists, crawler: Crawler):
    entries.put(database, "maker/m1", [1, 2])
    hub_lists.add(repo(1, private=True))
    crawl_service.start(database, BASE, Limits())

    run(crawler)

    with database.transaction() as session:
        assert models.get(session, "maker/m1").state == ModelState.REMOVED
    assert queued(database) == []


def test_a_rename_on_the_hub_is_followed(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo(1))
    crawl_service.start(database, BASE, Limits())
    run(crawler)
    end_jobs(database)
    before = entries.put(database, "maker/m1", [1, 2])
    del hub_lists.repos["maker/m1"]
    hub_lists.add(repo(1, id="maker/better"))

    crawl_service.start(database, BASE, Limits())
    run(crawler)

    with database.transaction() as session:
        for name in ("maker/better", "maker/m1"):
            assert (models.get(session, name).id, models.get(session, name).repo_id) == (before, "maker/better")
    assert queued(database) == []
