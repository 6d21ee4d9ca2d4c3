from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from catalog.clusters import service as cluster_service
from catalog.clusters.parameters import Parameters
from catalog.clusters.repository import runs as cluster_runs
from catalog.clusters.runner import Grouper
from catalog.database import Database
from catalog.vectors.refresh_policy import AFTER_FAILURE, Policy
from tests.support import catalog as entries
from tests.support.catalog import MEANING
from tests.support.clusters import cluster, fill, vector
from tests.support.vector_age import age

POLICY = Policy(rows=5, share=0.5, quiet=30, patience=600)


def rung(database: Database, policy: Policy = POLICY) -> bool:
    return bool(cluster_service.ring_for_due(database, policy))


def test_enough_models_and_then_quiet_make_a_run_due(database: Database):
    fill(database, each=2)
    assert not rung(database)
    age(database, 31)
    assert rung(database)


def test_too_few_models_are_waited_for(database: Database):
    fill(database, each=1)
    age(database, 31)
    assert not rung(database)


def test_private_models_call_for_nothing(database: Database):
    for number in range(8):
        entries.put_private(database, f"owner/hidden-{number}", vector(0, number), "me")
    age(database, 601)
    assert not rung(database)


def test_where_it_is_never_quiet_patience_ends(database: Database):
    fill(database, each=2)
    age(database, 601, "%law%")
    assert rung(database)


def test_a_share_of_a_large_space_must_have_changed(database: Database, tmp_path: Path):
    fill(database, each=4)
    cluster(database, tmp_path)
    rest(database)
    for number in range(4, 9):
        entries.put(database, f"owner/more-{number}", vector(0, number))
    age(database, 31)
    assert not rung(database)
    entries.put(database, "owner/more-9", vector(0, 9))
    age(database, 31)
    assert rung(database)


def test_a_share_says_nothing_where_a_space_spans_bases(database: Database, tmp_path: Path):
    for number in range(12):
        entries.put(database, f"owner/old-{number}", vector(number % 3, number), space=MEANING)
    _, space = cluster_service.ask(database, Parameters(), "meaning")
    Grouper(database, tmp_path).run(space.id)
    rest(database)
    for number in range(5):
        entries.put(database, f"owner/new-{number}", vector(0, number), space=MEANING, base="wide/base")
    age(database, 31)
    assert rung(database)


def rest(database: Database) -> None:
    """Let the time pass that a space rests after a run."""
    with database.transaction() as session:
        session.execute(text("UPDATE cluster_runs SET seconds = 0"))


def test_after_a_run_nothing_is_due(database: Database, tmp_path: Path):
    fill(database, each=4)
    age(database, 31)
    cluster(database, tmp_path)
    rest(database)
    assert not rung(database)


def test_a_run_that_failed_is_not_tried_again_at_once(database: Database):
    fill(database, each=2)
    age(database, 31)
    run, _ = cluster_service.ask(database, Parameters())
    with database.transaction() as session:
        cluster_runs.fail(session, run.id, MemoryError("no room"))
    assert not rung(database)
    with database.transaction() as session:
        later = {"seconds": AFTER_FAILURE + 1}
        statement = "UPDATE cluster_runs SET finished_at = now() - make_interval(secs => :seconds)"
        session.execute(text(statement), later)
    assert rung(database)


@pytest.mark.parametrize("held", [False, True])
def test_what_waits_is_rung_for_again_unless_somebody_is_at_it(database: Database, held: bool):
    fill(database, each=1)
    _, space = cluster_service.ask(database, Parameters())
    with database.transaction() as session:
        cluster_runs.take(session, space.id)
    with database.transaction() as other:
        if held:
            assert cluster_runs.try_lock(other, space.id)
        assert rung(database) is not held
