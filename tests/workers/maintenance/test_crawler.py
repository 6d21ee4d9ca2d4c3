from __future__ import annotations

import pytest
from sqlalchemy import func, select, update

from catalog.database import Database
from catalog.hub_sync import crawls as crawl_service
from catalog.hub_sync.crawls import PAGE_SIZE, CrawlLimits, CrawlSource
from catalog.hub_sync.repository import crawls
from catalog.jobs.repository import jobs
from catalog.models.repository import models
from catalog.tables import Crawl, CrawlState, Job, JobState, Model, ModelState, Priority, Source
from tests.support import catalog as entries
from tests.support.hub_lists import HubLists, repo_entry
from workers.hub import service_token
from workers.hub.listing import HubListing
from workers.maintenance.crawler import MAX_ATTEMPTS, Crawler

BASE = CrawlSource(base="pico/llama", relations=("adapter",))


@pytest.fixture
def crawler(database: Database, hub_lists: HubLists) -> Crawler:
    return Crawler(database, HubListing(hub_lists.url, None, timeout=5), max_queued=100_000)


def run(crawler: Crawler) -> None:
    while crawler.step():
        pass


def reload(database: Database, crawl: Crawl) -> Crawl:
    with database.transaction() as session:
        return crawls.get(session, crawl.id)


def queued_repos(database: Database) -> list[str]:
    with database.transaction() as session:
        statement = select(Model.repo_id).join(Job).where(Job.state == JobState.QUEUED).order_by(Model.repo_id)
        return list(session.scalars(statement))


def end_jobs(database: Database, state: JobState = JobState.DONE) -> None:
    with database.transaction() as session:
        session.execute(update(Job).values(state=state))


def test_adapters_of_a_base_are_queued_from_all_pages(database: Database, hub_lists: HubLists, crawler: Crawler):
    total = PAGE_SIZE * 2 + 5
    hub_lists.add(*(repo_entry(number) for number in range(total)), repo_entry(999, base="other/base"))
    crawl = crawl_service.create(database, BASE, CrawlLimits())

    run(crawler)

    crawl = reload(database, crawl)
    assert (crawl.state, crawl.pages, crawl.listed, crawl.queued) == (CrawlState.DONE, 3, total, total)
    assert len(queued_repos(database)) == total
    assert set(hub_lists.requests.values()) == {1}


def test_adapters_and_full_fine_tunes_are_separate_lists(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo_entry(1), repo_entry(2, tags=["base_model:finetune:pico/llama"]))
    crawl = crawl_service.create(database, CrawlSource(base="pico/llama"), CrawlLimits())

    run(crawler)

    assert queued_repos(database) == ["maker/m1", "maker/m2"]
    assert reload(database, crawl).pages == 2


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (CrawlSource(owner="maker"), ["maker/m1", "maker/m2"]),
        (CrawlSource(tag="medical"), ["maker/m2", "other/m3"]),
        (CrawlSource(collection="x/mine-1"), ["maker/m1", "other/m3"]),
        (CrawlSource(ids=("other/m3", "maker/m2", "no/body")), ["maker/m2", "other/m3"]),
    ],
)
def test_crawl_queues_the_repos_of_its_source(
    database: Database, hub_lists: HubLists, crawler: Crawler, source: CrawlSource, expected: list[str]
):
    hub_lists.add(repo_entry(1), repo_entry(2, tags=["medical"]), repo_entry(3, owner="other", tags=["medical"]))
    hub_lists.collections["x/mine-1"] = ["maker/m1", "other/m3"]
    crawl = crawl_service.create(database, source, CrawlLimits())

    run(crawler)

    assert queued_repos(database) == expected
    assert reload(database, crawl).state == CrawlState.DONE


def test_metadata_is_stored_from_the_page(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo_entry(7))
    crawl_service.create(database, BASE, CrawlLimits())

    run(crawler)

    with database.transaction() as session:
        model = models.get(session, "maker/m7")
    assert (model.license, model.datasets, model.languages) == ("mit", ["a/b"], ["en"])
    assert (model.downloads, model.likes, model.hub_id) == (7, 1, f"{7:024x}")
    assert model.hub_created_at is not None
    assert model.hub_updated_at is not None


def test_base_in_the_card_becomes_the_base_hint_of_the_job(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo_entry(1))
    crawl_service.create(database, BASE, CrawlLimits())

    run(crawler)

    with database.transaction() as session:
        assert jobs.list_page(session)[0].base_hint == "pico/llama"


def test_second_crawl_queues_only_new_commits(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo_entry(1), repo_entry(2))
    crawl_service.create(database, BASE, CrawlLimits())
    run(crawler)
    end_jobs(database)
    hub_lists.add(repo_entry(2, commit=1))

    second = crawl_service.create(database, BASE, CrawlLimits())
    run(crawler)

    assert queued_repos(database) == ["maker/m2"]
    assert (reload(database, second).queued, reload(database, second).unchanged) == (1, 1)


@pytest.mark.parametrize(
    ("state", "queued"), [(JobState.DONE, True), (JobState.CANCELLED, True), (JobState.FAILED, False)]
)
def test_known_commit_that_is_not_current_is_queued_unless_its_job_failed(
    database: Database, hub_lists: HubLists, crawler: Crawler, state: JobState, queued: bool
):
    hub_lists.add(repo_entry(1))
    crawl_service.create(database, BASE, CrawlLimits())
    run(crawler)
    with database.transaction() as session:
        session.execute(update(Job).values(state=state, finished_at=func.now()))
    entries.put(database, "maker/m1", [1, 2], commit="of a branch")

    crawl_service.create(database, BASE, CrawlLimits())
    run(crawler)

    assert queued_repos(database) == (["maker/m1"] if queued else [])


def test_indexed_commit_is_not_queued(database: Database, hub_lists: HubLists, crawler: Crawler):
    entries.put(database, "maker/m1", [1, 2], commit="one")
    hub_lists.add(repo_entry(1, sha=entries.sha("one")))
    crawl_service.create(database, BASE, CrawlLimits())

    run(crawler)

    assert queued_repos(database) == []


def test_failed_commit_is_not_queued_again(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo_entry(1))
    for expected in (["maker/m1"], []):
        crawl_service.create(database, BASE, CrawlLimits())
        run(crawler)
        assert queued_repos(database) == expected
        end_jobs(database, JobState.FAILED)


def test_dry_run_counts_and_stores_nothing(database: Database, hub_lists: HubLists, crawler: Crawler):
    weights = {"parameters": {"F32": 100}, "total": 100}
    hub_lists.add(repo_entry(1), repo_entry(2, safetensors=weights), repo_entry(3, usedStorage=None))
    crawl = crawl_service.create(database, BASE, CrawlLimits(dry_run=True))

    run(crawler)

    crawl = reload(database, crawl)
    assert (crawl.queued, crawl.size, crawl.sized) == (3, 1_400, 2)
    with database.transaction() as session:
        estimate = crawl_service.estimate(session, crawl, 30)
        assert session.execute(select(func.count()).select_from(Model)).scalar_one() == 0
    assert (estimate.size, estimate.measured, estimate.workers) == (2_100, False, 1)
    assert estimate.hours == pytest.approx(
        (3 / crawl_service.ASSUMED_PACE + 2_100 / crawl_service.ASSUMED_BANDWIDTH) / 3600
    )


def test_crawl_queues_at_most_max_models(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(*(repo_entry(number) for number in range(PAGE_SIZE + 10)))
    crawl = crawl_service.create(database, BASE, CrawlLimits(max_models=PAGE_SIZE + 3))

    run(crawler)

    assert (reload(database, crawl).state, reload(database, crawl).queued) == (CrawlState.DONE, PAGE_SIZE + 3)
    assert len(queued_repos(database)) == PAGE_SIZE + 3


def test_repo_with_few_downloads_is_skipped(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo_entry(1, downloads=5), repo_entry(2, downloads=50))
    crawl = crawl_service.create(database, BASE, CrawlLimits(min_downloads=10))

    run(crawler)

    assert queued_repos(database) == ["maker/m2"]
    assert reload(database, crawl).skipped == 1


def test_unusable_entry_is_skipped(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo_entry(1), repo_entry(2, id="no-owner"), repo_entry(3, createdAt="long ago"))
    crawl = crawl_service.create(database, BASE, CrawlLimits())

    run(crawler)

    assert queued_repos(database) == ["maker/m1"]
    assert (reload(database, crawl).state, reload(database, crawl).skipped) == (CrawlState.DONE, 2)


def test_crawl_waits_while_the_queue_is_full(database: Database, hub_lists: HubLists):
    hub_lists.add(*(repo_entry(number) for number in range(PAGE_SIZE * 4)))
    crawler = Crawler(database, HubListing(hub_lists.url, None, timeout=5), max_queued=PAGE_SIZE * 2)
    crawl = crawl_service.create(database, BASE, CrawlLimits())

    run(crawler)
    assert (len(queued_repos(database)), reload(database, crawl).state) == (PAGE_SIZE * 2, CrawlState.RUNNING)

    end_jobs(database)
    run(crawler)
    assert (len(queued_repos(database)), reload(database, crawl).state) == (PAGE_SIZE * 2, CrawlState.DONE)


@pytest.mark.parametrize("dry_run", [True, False])
def test_gated_repos_that_are_queued_are_counted(
    database: Database, hub_lists: HubLists, crawler: Crawler, dry_run: bool
):
    hub_lists.add(repo_entry(1, gated="auto"), repo_entry(2, gated="manual"), repo_entry(3, gated=False))
    crawl = crawl_service.create(database, BASE, CrawlLimits(dry_run=dry_run))
    run(crawler)
    crawl = reload(database, crawl)
    assert (crawl.queued, crawl.gated) == (3, 2)


def test_dry_run_does_not_wait_for_the_queue(database: Database, hub_lists: HubLists):
    hub_lists.add(repo_entry(1))
    for number in range(PAGE_SIZE):
        entries.put_job(database, f"waiting/m{number}")
    crawler = Crawler(database, HubListing(hub_lists.url, None, timeout=5), max_queued=PAGE_SIZE)
    waiting = crawl_service.create(database, BASE, CrawlLimits())
    dry_run = crawl_service.create(database, BASE, CrawlLimits(dry_run=True))

    run(crawler)

    assert (reload(database, waiting).pages, reload(database, dry_run).state) == (0, CrawlState.DONE)


def test_crawls_take_turns(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(*(repo_entry(number) for number in range(PAGE_SIZE * 2)))
    two_crawls = [
        crawl_service.create(database, BASE, CrawlLimits()),
        crawl_service.create(database, CrawlSource(owner="maker"), CrawlLimits()),
    ]

    crawler.step()
    crawler.step()

    assert [reload(database, crawl).pages for crawl in two_crawls] == [1, 1]


def test_only_one_process_crawls_at_a_time(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo_entry(1))
    crawl_service.create(database, BASE, CrawlLimits())

    with database.transaction() as other_session:
        assert crawls.try_lock(other_session)
        assert not crawler.step()

    assert crawler.step()


def test_page_of_a_paused_crawl_is_discarded_and_fetched_again(
    database: Database, hub_lists: HubLists, crawler: Crawler
):
    hub_lists.add(*(repo_entry(number) for number in range(PAGE_SIZE + 1)))
    crawl = crawl_service.create(database, BASE, CrawlLimits())
    crawler.step()
    with database.transaction() as session:
        started = crawls.begin_step(session, crawl.id)
    page = crawler.fetch_page(started)
    crawl_service.pause(database, crawl.id)

    assert not crawl_service.store_page(database, started, page)
    run(crawler)
    assert (reload(database, crawl).pages, len(queued_repos(database))) == (1, PAGE_SIZE)

    crawl_service.resume(database, crawl.id)
    run(crawler)
    assert (reload(database, crawl).state, len(queued_repos(database))) == (CrawlState.DONE, PAGE_SIZE + 1)


def test_page_is_stored_once(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(*(repo_entry(number) for number in range(PAGE_SIZE + 1)))
    crawl = crawl_service.create(database, BASE, CrawlLimits())
    with database.transaction() as session:
        started = crawls.begin_step(session, crawl.id)
    page = crawler.fetch_page(started)

    assert crawl_service.store_page(database, started, page)
    assert not crawl_service.store_page(database, started, page)
    assert reload(database, crawl).listed == PAGE_SIZE


def test_crawl_waits_for_retry_after(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo_entry(1))
    hub_lists.refusals.append((429, {"Retry-After": "1000"}))
    crawl = crawl_service.create(database, BASE, CrawlLimits())

    run(crawler)

    crawl = reload(database, crawl)
    assert (crawl.state, crawl.error_code, crawl.attempts) == (CrawlState.RUNNING, "hub_rate_limited", 1)
    assert (crawl.wait_until - crawl.stepped_at).total_seconds() == pytest.approx(1000, abs=5)


def test_rate_limits_never_fail_a_crawl(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo_entry(1))
    hub_lists.refusals.extend([(429, {"Retry-After": "0"})] * 20)
    crawl = crawl_service.create(database, BASE, CrawlLimits())

    run(crawler)

    assert reload(database, crawl).state == CrawlState.DONE


def test_crawl_continues_after_the_hub_was_unavailable(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo_entry(1))
    hub_lists.refusals.append((503, {"Retry-After": "0"}))
    crawl = crawl_service.create(database, BASE, CrawlLimits())

    run(crawler)

    crawl = reload(database, crawl)
    assert (crawl.state, crawl.error_code, crawl.attempts) == (CrawlState.DONE, None, 0)


def test_unknown_collection_fails_the_crawl_until_it_is_resumed(
    database: Database, hub_lists: HubLists, crawler: Crawler
):
    hub_lists.add(repo_entry(1))
    crawl = crawl_service.create(database, CrawlSource(collection="x/none-1"), CrawlLimits())
    run(crawler)
    assert (reload(database, crawl).state, reload(database, crawl).error_code) == (CrawlState.FAILED, "repo_not_found")

    hub_lists.collections["x/none-1"] = ["maker/m1"]
    crawl_service.resume(database, crawl.id)
    run(crawler)

    assert (reload(database, crawl).state, queued_repos(database)) == (CrawlState.DONE, ["maker/m1"])


def test_crawl_fails_after_too_many_attempts_at_a_page(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.refusals.extend([(503, {"Retry-After": "0"})] * 20)
    crawl = crawl_service.create(database, BASE, CrawlLimits())

    run(crawler)

    assert (reload(database, crawl).state, reload(database, crawl).error_code) == (CrawlState.FAILED, "hub_unavailable")


def test_cursor_to_another_host_is_not_requested(database: Database, hub_lists: HubLists, crawler: Crawler):
    crawl = crawl_service.create(database, BASE, CrawlLimits())
    with database.transaction() as session:
        crawls.get(session, crawl.id).cursor = "http://127.0.0.1:1/api/models?cursor=1"

    crawler.step()

    assert reload(database, crawl).error_code == "hub_unavailable"
    assert not hub_lists.requests


def make_due(database: Database, crawl: Crawl) -> None:
    with database.transaction() as session:
        session.execute(update(Crawl).where(Crawl.id == crawl.id).values(next_at=func.now()))


def test_recurring_crawl_lists_only_changes_since_the_last_run(
    database: Database, hub_lists: HubLists, crawler: Crawler
):
    hub_lists.add(*(repo_entry(number) for number in range(PAGE_SIZE * 3)))
    crawl = crawl_service.create(database, BASE, CrawlLimits(every=3600))
    run(crawler)
    end_jobs(database)
    hub_lists.requests.clear()
    hub_lists.add(repo_entry(5, commit=1, lastModified="2100-01-01T00:00:00.000Z"))
    assert crawl_service.restart_due(database) == []

    make_due(database, crawl)
    assert crawl_service.restart_due(database) == [crawl.id]
    run(crawler)

    crawl = reload(database, crawl)
    assert (crawl.state, crawl.run, crawl.listed, crawl.queued) == (CrawlState.DONE, 2, 1, 1)
    assert queued_repos(database) == ["maker/m5"]
    assert sum(hub_lists.requests.values()) == 1
    assert crawl.next_at is not None


def test_cancelled_recurring_crawl_does_not_start_again(database: Database, hub_lists: HubLists, crawler: Crawler):
    crawl = crawl_service.create(database, BASE, CrawlLimits(every=3600))
    run(crawler)

    assert crawl_service.cancel(database, crawl.id).state == CrawlState.CANCELLED
    make_due(database, crawl)
    assert crawl_service.restart_due(database) == []


def test_repo_listed_as_private_is_removed(database: Database, hub_lists: HubLists, crawler: Crawler):
    entries.put(database, "maker/m1", [1, 2])
    hub_lists.add(repo_entry(1, private=True))
    crawl_service.create(database, BASE, CrawlLimits())

    run(crawler)

    with database.transaction() as session:
        assert models.get(session, "maker/m1").state == ModelState.REMOVED
    assert queued_repos(database) == []


def test_rename_on_the_hub_is_followed(database: Database, hub_lists: HubLists, crawler: Crawler):
    hub_lists.add(repo_entry(1, sha=entries.sha("one")))
    crawl_service.create(database, BASE, CrawlLimits())
    run(crawler)
    end_jobs(database)
    model_id = entries.put(database, "maker/m1", [1, 2])
    del hub_lists.repos["maker/m1"]
    hub_lists.add(repo_entry(1, id="maker/better", sha=entries.sha("one")))

    crawl_service.create(database, BASE, CrawlLimits())
    run(crawler)

    with database.transaction() as session:
        for name in ("maker/better", "maker/m1"):
            assert (models.get(session, name).id, models.get(session, name).repo_id) == (model_id, "maker/better")
    assert queued_repos(database) == []


def test_crawl_of_ids_postpones_private_repos_while_the_token_is_invalid(
    database: Database, hub_lists: HubLists, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(service_token, "PROBE_INTERVAL", 0)
    crawler = Crawler(database, HubListing(hub_lists.url, "ours", timeout=5), max_queued=100_000)
    hub_lists.add(repo_entry(1), repo_entry(2, private=True), repo_entry(3))
    hub_lists.valid_tokens = set()
    crawl = crawl_service.create(database, CrawlSource(ids=("maker/m1", "maker/m2", "maker/m3")), CrawlLimits())

    for _ in range(MAX_ATTEMPTS + 5):  # waiting for a token is no failure
        with database.transaction() as session:
            session.execute(update(Crawl).values(wait_until=None))
        run(crawler)
    assert queued_repos(database) == ["maker/m1", "maker/m3"]
    crawl = reload(database, crawl)
    assert (crawl.state, crawl.error_code, crawl.skipped) == (CrawlState.RUNNING, "hub_token_invalid", 0)

    hub_lists.valid_tokens = {"ours"}
    hub_lists.add(repo_entry(2))
    with database.transaction() as session:
        session.execute(update(Crawl).values(wait_until=None))
    run(crawler)
    crawl = reload(database, crawl)
    assert (crawl.state, crawl.listed, crawl.queued) == (CrawlState.DONE, 3, 3)
    assert crawl.ids == ["maker/m1", "maker/m2", "maker/m3"]


def test_jobs_that_wait_for_a_valid_token_do_not_stop_crawls(database: Database):
    with database.transaction() as session:
        model = models.get_or_create(session, "a/one", Source.HUB)
        job, _ = jobs.submit(session, model, None, None, priority=Priority.USER)
        assert crawls.count_queued_jobs(session, 10) == 1
        job.error_code = "hub_token_invalid"
        session.flush()
        assert crawls.count_queued_jobs(session, 10) == 0
