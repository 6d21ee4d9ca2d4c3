"""How reindexes end."""

from __future__ import annotations

import dataclasses

import pytest

from catalog.clusters.parameters import Parameters
from catalog.clusters.repository import runs as cluster_runs
from catalog.clusters.runner import Grouper
from catalog.database import Database
from catalog.errors import ReindexIncomplete, ReindexNotReady, ReindexOver, RepoNotFound
from catalog.jobs.repository import jobs
from catalog.maps import repository as maps
from catalog.maps.runner import Drawer
from catalog.models.repository import models
from catalog.reindexes import cutover, readiness
from catalog.reindexes import service as reindex_service
from catalog.reindexes.repository import reindexes
from catalog.reindexes.service import Selection
from catalog.spaces import repository as spaces
from catalog.tables import JobState, ModelState, Reindex, ReindexState
from catalog.vectors.repository import feed, vectors
from tests.support import catalog as entries
from tests.support.catalog import SPACE
from tests.support.reindexes import EXACT, begin, end, finish, found, its_jobs, look, measure, serving_key, state_of

NEWER = dataclasses.replace(SPACE, encoder_version="2")
OTHER = dataclasses.replace(SPACE, base_repo="tiny/other")


def switch(database: Database, reindex_id: int, force: bool = False) -> Reindex:
    return cutover.switch(database, reindex_id, force=force, exact_bytes=EXACT)


def ready(database: Database, measured=SPACE, models: int = 3) -> int:
    """A reindex of some models whose vectors turned by a right angle."""
    for number in range(models):
        entries.put(database, f"a/m{number}", [1, number])
    reindex_id = begin(database, space=measured)
    for number, job in enumerate(its_jobs(database, reindex_id)):
        measure(database, job, [-number, 1], measured)
    finish(database, reindex_id)
    return reindex_id


def test_what_is_measured_anew_serves_after_the_switch_and_not_before(database: Database):
    reindex_id = ready(database)
    beside = dataclasses.replace(SPACE, edition=reindex_id)
    with database.transaction() as session:
        assert vectors.newest(session, "a/m1", features=(SPACE.feature,)).vector.tolist() == [1, 1]
        named = vectors.newest(session, "a/m1", features=(SPACE.feature,), space_key=beside.key)
        assert named.vector.tolist() == [-1, 1]

    assert switch(database, reindex_id).state == ReindexState.SWITCHED

    assert serving_key(database) == beside.key
    with database.transaction() as session:
        assert vectors.newest(session, "a/m1", features=(SPACE.feature,)).vector.tolist() == [-1, 1]
        assert spaces.newest(session).key == beside.key
    assert len(found(database, SPACE)) == 3  # kept


def test_what_is_stored_after_the_switch_goes_where_it_serves(database: Database):
    reindex_id = ready(database)
    with database.transaction() as session:
        assert spaces.home(session, SPACE, 2).edition == 0
    switch(database, reindex_id)
    with database.transaction() as session:
        assert spaces.home(session, SPACE, 2).edition == reindex_id
        assert spaces.home(session, NEWER, 2).edition == 0


def test_a_later_contract_does_not_serve_by_itself(database: Database):
    entries.put(database, "a/one", [1, 0])
    entries.put(database, "a/two", [1, 0], space=NEWER)
    assert serving_key(database) == SPACE.key
    switched = begin(database, Selection(outdated=True), NEWER)
    measure(database, *its_jobs(database, switched), [0, 1], NEWER)
    finish(database, switched)

    switch(database, switched)

    assert serving_key(database) == dataclasses.replace(NEWER, edition=switched).key
    assert set(found(database, dataclasses.replace(NEWER, edition=switched))) == {"a/one", "a/two"}


def test_a_switch_that_would_lose_models_needs_force(database: Database):
    for name in ("a/one", "a/two"):
        entries.put(database, name, [1, 0])
    reindex_id = begin(database, space=NEWER)
    first, second = its_jobs(database, reindex_id)
    measure(database, first, [0, 1], NEWER)
    end(database, second, JobState.FAILED, RepoNotFound.code)
    finish(database, reindex_id)

    with pytest.raises(ReindexIncomplete, match="a/two"):
        switch(database, reindex_id)
    assert serving_key(database) == SPACE.key
    switch(database, reindex_id, force=True)
    assert serving_key(database) != SPACE.key


def test_nothing_is_switched_to_before_it_is_measured(database: Database):
    entries.put(database, "a/one", [1, 0])
    reindex_id = begin(database)
    for force in (False, True):
        with pytest.raises(ReindexNotReady, match="measuring"):
            switch(database, reindex_id, force)


def test_what_came_last_is_there_after_the_switch(database: Database):
    reindex_id = ready(database)
    entries.put(database, "a/late", [5, 1])
    switch(database, reindex_id)
    assert found(database, dataclasses.replace(SPACE, edition=reindex_id))["a/late"] == [5, 1]


def test_a_model_that_was_removed_meanwhile_stays_away(database: Database):
    reindex_id = ready(database)
    with database.transaction() as session:
        feed.remove(session, models.get(session, "a/m0").id)
    switch(database, reindex_id)
    assert set(found(database, dataclasses.replace(SPACE, edition=reindex_id))) == {"a/m1", "a/m2"}


def test_whether_a_model_moves_its_base_is_as_it_was_measured_last(database: Database):
    entries.put(database, "a/one", [1, 0])
    reindex_id = begin(database)
    measure(database, *its_jobs(database, reindex_id), [0.1, 0], no_shift=True)
    finish(database, reindex_id)
    assert state_of(database, "a/one") == ModelState.INDEXED

    switch(database, reindex_id)
    assert state_of(database, "a/one") == ModelState.NO_SHIFT
    cutover.roll_back(database, reindex_id)
    assert state_of(database, "a/one") == ModelState.INDEXED


def test_rolled_back_after_the_switch_the_old_space_serves_with_what_came_since(database: Database):
    reindex_id = ready(database)
    switch(database, reindex_id)
    entries.put(database, "a/since", [4, 1], space=dataclasses.replace(SPACE, edition=reindex_id))

    assert cutover.roll_back(database, reindex_id).state == ReindexState.ROLLED_BACK

    assert serving_key(database) == SPACE.key
    assert found(database, SPACE) == {"a/m0": [1, 0], "a/m1": [1, 1], "a/m2": [1, 2], "a/since": [4, 1]}


def test_a_rollback_to_another_contract_tells_what_it_would_lose(database: Database):
    reindex_id = ready(database, NEWER)
    switch(database, reindex_id)
    entries.put(database, "a/since", [4, 1], space=dataclasses.replace(NEWER, edition=reindex_id))

    with pytest.raises(ReindexIncomplete, match="a/since"):
        cutover.roll_back(database, reindex_id)
    cutover.roll_back(database, reindex_id, force=True)

    assert serving_key(database) == SPACE.key
    with database.transaction() as session:  # it is found by its name all the same
        assert vectors.newest(session, "a/since", features=(SPACE.feature,)).vector.tolist() == [4, 1]


@pytest.mark.parametrize(
    ("end_it", "state"),
    [(cutover.roll_back, ReindexState.ROLLED_BACK), (cutover.cancel, ReindexState.CANCELLED)],
    ids=["roll back", "cancel"],
)
def test_before_the_switch_what_was_measured_is_thrown_away(database: Database, end_it, state: ReindexState):
    for name in ("a/one", "a/two"):
        entries.put(database, name, [1, 0])
    reindex_id = begin(database)
    first, second = its_jobs(database, reindex_id)
    measure(database, first, [0, 1])

    assert end_it(database, reindex_id).state == state
    while reindex_service.discard(database, reindex_id):
        pass

    assert found(database, dataclasses.replace(SPACE, edition=reindex_id)) == {}
    assert set(found(database, SPACE)) == {"a/one", "a/two"}
    with database.transaction() as session:
        assert jobs.get(session, second.id).state == JobState.CANCELLED
        assert reindexes.open_ones(session) == []
    assert serving_key(database) == SPACE.key


def test_what_is_over_is_not_ended_again(database: Database):
    reindex_id = ready(database)
    cutover.cancel(database, reindex_id)
    for again in (cutover.cancel, cutover.roll_back, switch):
        with pytest.raises(ReindexOver):
            again(database, reindex_id)


def test_only_the_last_switch_is_rolled_back(database: Database):
    first = ready(database)
    switch(database, first)
    second = begin(database)
    for job in its_jobs(database, second):
        measure(database, job, [1, 1])
    finish(database, second)
    switch(database, second)

    with pytest.raises(ReindexOver, match="Another reindex"):
        cutover.roll_back(database, first)
    cutover.roll_back(database, second)
    assert serving_key(database) == dataclasses.replace(SPACE, edition=first).key


def move(database: Database) -> int:
    """A reindex that finds one of two models to be a fine-tune of another base, which has a model already."""
    entries.put(database, "a/moves", [1, 0])
    entries.put(database, "a/stays", [1, 1])
    entries.put(database, "b/there", [3, 3], space=OTHER)
    with database.transaction() as session:
        entries.put_revision(session, "b/there", base=OTHER.base_repo)
    reindex_id = begin(database, Selection(base=SPACE.base_repo))
    for job in its_jobs(database, reindex_id):
        moves = job.model.repo_id == "a/moves"
        measure(database, job, [0, 1], OTHER if moves else SPACE)
        if moves:
            with database.transaction() as session:
                revision = models.current_revision(session, job.model_id)
                found_base = {"base_repo": OTHER.base_repo, "base_sha": OTHER.base_sha, "evidence": {"declared": "x"}}
                reindexes.note_move(session, reindex_id, revision, kind="lora", **found_base)
    finish(database, reindex_id)
    return reindex_id


def base_of(database: Database, repo_id: str) -> str:
    with database.transaction() as session:
        return models.get(session, repo_id).revision.base_repo


def test_a_model_of_another_base_moves_with_the_switch_and_comes_back(database: Database):
    reindex_id = move(database)
    beside, there = (dataclasses.replace(space, edition=reindex_id) for space in (SPACE, OTHER))
    assert (base_of(database, "a/moves"), set(found(database, SPACE))) == ("tiny/base", {"a/moves", "a/stays"})

    switch(database, reindex_id)

    assert base_of(database, "a/moves") == "tiny/other"
    assert set(found(database, beside)) == set(found(database, SPACE)) == {"a/stays"}
    assert set(found(database, there)) == {"a/moves", "b/there"}

    cutover.roll_back(database, reindex_id)

    assert base_of(database, "a/moves") == "tiny/base"
    assert set(found(database, SPACE)) == {"a/moves", "a/stays"}
    assert set(found(database, OTHER)) == {"b/there"}


def test_clusters_and_map_are_made_before_it_is_ready(database: Database, tmp_path):
    rows = [[1, 0.01 * number] for number in range(6)] + [[0.01 * number, 1] for number in range(6)]
    for number, row in enumerate(rows):
        entries.put(database, f"a/m{number}", row)
    with database.transaction() as session:
        old = spaces.newest(session).id
        cluster_runs.ask(session, old, algorithm="kmeans", parameters=Parameters("kmeans", clusters=2).as_dict(),
                         asked_by="admin")  # fmt: skip
    Grouper(database, tmp_path).run(old)
    Drawer(database, tmp_path).run(old)
    reindex_id = begin(database)
    for job, row in zip(its_jobs(database, reindex_id), rows, strict=True):
        measure(database, job, row)
    assert reindex_service.await_jobs(database, reindex_id)
    while reindex_service.carry(database, reindex_id):
        pass

    assert not readiness.build(database, reindex_id, EXACT)
    left = readiness.parts_left(database, reindex_id, EXACT)
    assert {each["part"] for each in left} == {"clusters", "map"}
    with pytest.raises(ReindexNotReady, match="clusters, map"):
        switch(database, reindex_id)

    with database.transaction() as session:
        new = spaces.get(session, left[0]["space"]).id
    Grouper(database, tmp_path).run(new)
    Drawer(database, tmp_path).run(new)
    assert readiness.build(database, reindex_id, EXACT)
    assert look(database, reindex_id).state == ReindexState.READY

    switch(database, reindex_id)
    with database.transaction() as session:
        assert cluster_runs.newest_current(session)[1].id == new
        assert maps.standing(session, None).space_id == new


def test_a_large_space_needs_an_index(database: Database):
    for number in range(3):
        entries.put(database, f"a/m{number}", [1, number])
    reindex_id = begin(database)
    for job in its_jobs(database, reindex_id):
        measure(database, job, [0, 1])
    assert reindex_service.await_jobs(database, reindex_id)
    while reindex_service.carry(database, reindex_id):
        pass
    assert not readiness.build(database, reindex_id, exact_bytes=16)
    assert [each["part"] for each in readiness.parts_left(database, reindex_id, 16)] == ["index"]


def test_the_report_compares_what_both_spaces_have(database: Database):
    reindex_id = ready(database, models=6)
    final, [told] = readiness.drift_report(database, reindex_id)
    assert (final, told["drift"]["models"], told["lost"]["count"]) == (True, 6, 0)
    assert told["old"] == SPACE.key
    assert told["drift"]["norm_ratio"]["mean"] == pytest.approx(1)
    assert told["drift"]["cosine"]["mean"] == pytest.approx(0, abs=1e-6)


def test_there_is_a_report_of_what_is_measured_so_far(database: Database):
    for number in range(6):
        entries.put(database, f"a/m{number}", [1, number])
    reindex_id = begin(database)
    for job in its_jobs(database, reindex_id)[:4]:
        measure(database, job, [0, 1])
    final, [told] = readiness.drift_report(database, reindex_id)
    assert (final, told["drift"]["models"], told["lost"]["count"]) == (False, 4, 2)
