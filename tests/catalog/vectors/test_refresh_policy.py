from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from catalog.clusters import service as cluster_service
from catalog.clusters.parameters import Parameters
from catalog.clusters.repository import runs as cluster_runs
from catalog.clusters.runner import ClusterRunner
from catalog.database import Database
from catalog.vectors.refresh_policy import RETRY_DELAY, RefreshPolicy
from tests.support import catalog as entries
from tests.support.catalog import MEANING
from tests.support.clusters import cluster, fill, vector
from tests.support.vector_age import age_vectors

POLICY = RefreshPolicy(min_changes=5, share=0.5, debounce=30, max_wait=600)


def enqueued(database: Database, policy: RefreshPolicy = POLICY) -> bool:
    return bool(cluster_service.enqueue_due(database, policy))


def test_run_is_due_after_enough_changes_and_the_debounce_time(database: Database):
    fill(database, models_per_topic=2)
    assert not enqueued(database)
    age_vectors(database, 31)
    assert enqueued(database)


def test_too_few_changes_make_no_run_due(database: Database):
    fill(database, models_per_topic=1)
    age_vectors(database, 31)
    assert not enqueued(database)


def test_private_models_do_not_count_as_changes(database: Database):
    for number in range(8):
        entries.put_private(database, f"owner/hidden-{number}", vector(0, number), "me")
    age_vectors(database, 601)
    assert not enqueued(database)


def test_run_is_due_after_the_maximal_wait_despite_new_changes(database: Database):
    fill(database, models_per_topic=2)
    age_vectors(database, 601, "%law%")
    assert enqueued(database)


def test_large_space_needs_a_share_of_changes(database: Database, tmp_path: Path):
    fill(database, models_per_topic=4)
    cluster(database, tmp_path)
    end_cooldown(database)
    for number in range(4, 9):
        entries.put(database, f"owner/more-{number}", vector(0, number))
    age_vectors(database, 31)
    assert not enqueued(database)
    entries.put(database, "owner/more-9", vector(0, 9))
    age_vectors(database, 31)
    assert enqueued(database)


def test_share_does_not_apply_to_a_space_that_spans_bases(database: Database, tmp_path: Path):
    for number in range(12):
        entries.put(database, f"owner/old-{number}", vector(number % 3, number), space=MEANING)
    _, space = cluster_service.request_run(database, Parameters(), "meaning")
    ClusterRunner(database, tmp_path).run(space.id)
    end_cooldown(database)
    for number in range(5):
        entries.put(database, f"owner/new-{number}", vector(0, number), space=MEANING, base="wide/base")
    age_vectors(database, 31)
    assert enqueued(database)


def end_cooldown(database: Database) -> None:
    """End the cooldown after a run."""
    with database.transaction() as session:
        session.execute(text("UPDATE cluster_runs SET seconds = 0"))


def test_nothing_is_due_after_a_run(database: Database, tmp_path: Path):
    fill(database, models_per_topic=4)
    age_vectors(database, 31)
    cluster(database, tmp_path)
    end_cooldown(database)
    assert not enqueued(database)


def test_failed_run_is_retried_only_after_the_retry_delay(database: Database):
    fill(database, models_per_topic=2)
    age_vectors(database, 31)
    run, _ = cluster_service.request_run(database, Parameters())
    with database.transaction() as session:
        cluster_runs.fail(session, run.id, MemoryError("no room"))
    assert not enqueued(database)
    with database.transaction() as session:
        statement = "UPDATE cluster_runs SET finished_at = now() - make_interval(secs => :seconds)"
        session.execute(text(statement), {"seconds": RETRY_DELAY + 1})
    assert enqueued(database)


@pytest.mark.parametrize("locked", [False, True])
def test_requested_run_is_enqueued_again_unless_a_process_holds_its_lock(database: Database, locked: bool):
    fill(database, models_per_topic=1)
    _, space = cluster_service.request_run(database, Parameters())
    with database.transaction() as session:
        cluster_runs.claim(session, space.id)
    with database.transaction() as other:
        if locked:
            assert cluster_runs.try_lock(other, space.id)
        assert enqueued(database) is not locked
