from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from catalog.database import Database
from catalog.errors import BaseQuarantined, Quarantined, QuarantineNotFound, WorkerLost
from catalog.quarantine import repository as quarantine
from catalog.quarantine import service as quarantine_service
from catalog.quarantine.repository import QuarantineKey

LIMIT = 2
ERROR = WorkerLost("It died.")
REPO = QuarantineKey.of_repo("owner/model", "one")
BASE = QuarantineKey.of_base("owner/model", "one")


@pytest.fixture
def session(database: Database):
    with database.transaction() as session:
        yield session


def is_quarantined(session: Session, key: QuarantineKey) -> bool:
    return quarantine.find(session, key) is not None


def test_second_end_quarantines_a_commit_and_no_other(session: Session):
    assert not quarantine.count(session, REPO, ERROR, LIMIT)
    assert not is_quarantined(session, REPO)

    assert quarantine.count(session, REPO, ERROR, LIMIT)

    assert is_quarantined(session, QuarantineKey.of_repo("Owner/Model", "one"))
    assert not is_quarantined(session, QuarantineKey.of_repo("owner/model", "two"))
    assert not is_quarantined(session, BASE)


def test_end_beside_other_work_counts_and_only_one_alone_quarantines(session: Session):
    assert [quarantine.count(session, BASE, ERROR, LIMIT, alone=False) for _ in range(3)] == [False] * 3
    assert quarantine.count(session, BASE, ERROR, LIMIT)
    assert quarantine.count(session, BASE, ERROR, LIMIT, alone=False)  # it stays quarantined


def test_success_forgets_what_was_counted(session: Session):
    quarantine.count(session, REPO, ERROR, LIMIT)
    quarantine.forget(session, REPO)
    assert not quarantine.count(session, REPO, ERROR, LIMIT)
    assert quarantine.count(session, REPO, ERROR, LIMIT)

    quarantine.forget(session, REPO)

    assert is_quarantined(session, REPO)


def test_end_is_forgotten_after_a_month(session: Session):
    quarantine.count(session, REPO, ERROR, LIMIT)
    quarantine.count(session, BASE, ERROR, LIMIT, ends=2)
    session.execute(text("UPDATE quarantine_entries SET last_end_at = now() - interval '31 days'"))
    assert not quarantine.count(session, REPO, ERROR, LIMIT)
    assert is_quarantined(session, BASE)


def test_unknown_commit_stands_for_all_commits(session: Session):
    quarantine.count(session, QuarantineKey.of_repo("owner/model", None), ERROR, LIMIT, ends=2)
    assert is_quarantined(session, REPO)


def test_ends_on_a_submitted_base_leave_the_repo_usable_on_others(session: Session):
    named = QuarantineKey.of_repo("owner/model", "one", "evil/base")
    quarantine.count(session, named, ERROR, LIMIT, ends=2)
    assert is_quarantined(session, named)
    assert not is_quarantined(session, REPO)
    assert not is_quarantined(session, QuarantineKey.of_repo("owner/model", "one", "good/base"))

    quarantine.count(session, REPO, ERROR, LIMIT, ends=2)

    assert is_quarantined(session, QuarantineKey.of_repo("owner/model", "one", "good/base"))


@pytest.mark.parametrize(("key", "error"), [(REPO, Quarantined), (BASE, BaseQuarantined)])
def test_check_says_what_to_do(session: Session, key: QuarantineKey, error: type[Quarantined]):
    quarantine.check(session, key, "Owner/Model")
    quarantine.count(session, key, ERROR, LIMIT, ends=2)
    with pytest.raises(error, match="deltadex quarantine lift Owner/Model"):
        quarantine.check(session, key, "Owner/Model")


def test_service_lists_only_what_is_quarantined_and_lifts_it(database: Database):
    with database.transaction() as session:
        quarantine.count(session, REPO, ERROR, LIMIT, ends=2)
        quarantine.count(session, BASE, ERROR, LIMIT)
        quarantine.count(session, QuarantineKey.of_base("other/base", "one"), ERROR, LIMIT, ends=2)
    newest, oldest = quarantine_service.list_page(database, before=None, limit=10)
    assert (newest.repo_id, oldest.repo_id) == ("other/base", "owner/model")
    assert quarantine_service.list_page(database, repo_id="Owner/MODEL", before=None, limit=10)[0].id == oldest.id
    assert quarantine_service.list_page(database, before=newest.id, limit=10)[0].id == oldest.id

    assert quarantine_service.lift(database, oldest.id).repo_id == "owner/model"

    with pytest.raises(QuarantineNotFound):
        quarantine_service.lift(database, oldest.id)
    with database.transaction() as session:
        assert not is_quarantined(session, REPO)
        assert not quarantine.count(session, REPO, ERROR, LIMIT)  # nothing counts against it any more
