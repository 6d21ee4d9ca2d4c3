from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from psycopg.errors import AdminShutdown, LockNotAvailable, QueryCanceled
from sqlalchemy import make_url, text
from sqlalchemy.exc import IntegrityError

from app.deployment.embedded import EmbeddedServers
from catalog.database import Database, Limits, after_commit, unavailable
from catalog.errors import DatabaseBusy, DatabaseUnavailable, ModelNotFound
from catalog.models.repository import models
from catalog.tables import Model, Source


def test_transaction_commits_on_success(database: Database):
    with database.transaction() as session:
        models.get_or_create(session, "a/b", Source.HUB)

    with database.transaction() as session:
        assert models.get(session, "a/b").repo_id == "a/b"


def test_exception_rolls_back_and_propagates(database: Database):
    def fail() -> None:
        with database.transaction() as session:
            models.get_or_create(session, "a/b", Source.HUB)
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    with pytest.raises(ModelNotFound), database.transaction() as session:
        models.get(session, "a/b")


def test_rows_are_readable_after_the_commit(database: Database):
    with database.transaction() as session:
        model = models.get_or_create(session, "a/b", Source.HUB)
    assert model.repo_id == "a/b"


def test_after_commit_callback_runs_when_the_commit_is_visible(database: Database):
    repo_ids = []

    def read_model() -> None:
        with database.transaction() as other:
            repo_ids.append(models.get(other, "a/b").repo_id)

    with database.transaction() as session:
        after_commit(session, read_model)
        models.get_or_create(session, "a/b", Source.HUB)
        assert repo_ids == []
    assert repo_ids == ["a/b"]


def test_after_commit_callbacks_run_in_order(database: Database):
    order: list[int] = []
    with database.transaction() as session:
        for number in range(3):
            after_commit(session, lambda number=number: order.append(number))
    assert order == [0, 1, 2]


def test_after_commit_callbacks_do_not_run_after_an_exception(database: Database):
    called: list[int] = []

    def fail() -> None:
        with database.transaction() as session:
            after_commit(session, lambda: called.append(1))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert called == []


def test_after_commit_callbacks_do_not_run_when_the_commit_fails(database: Database):
    called: list[int] = []

    def fail() -> None:
        with database.transaction() as session:
            after_commit(session, lambda: called.append(1))
            session.add(
                Model(repo_id="a/b", owner="a", source="nowhere")
            )  # violates a check when the commit flushes it

    with pytest.raises(IntegrityError):
        fail()
    assert called == []


def test_unreachable_server_raises_database_unavailable(servers: EmbeddedServers, tmp_path):
    unreachable = make_url(servers.database_url).set(host=None, port=None, query={"host": str(tmp_path)})
    database = Database(unreachable.render_as_string(hide_password=False))
    with pytest.raises(DatabaseUnavailable), database.transaction() as session:
        session.execute(text("SELECT 1"))


def test_lost_connection_raises_database_unavailable(database: Database):
    called: list[int] = []

    def lose_connection() -> None:
        with database.transaction() as session:
            after_commit(session, lambda: called.append(1))
            pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with database.transaction() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 60000)"), {"pid": pid})
            session.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailable):
        lose_connection()
    assert called == []


def test_transaction_after_a_lost_connection_gets_a_new_one(database: Database):
    with database.transaction() as session:
        pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
    other = Database(database.url)
    with other.transaction() as session:
        session.execute(text("SELECT pg_terminate_backend(:pid, 60000)"), {"pid": pid})
    other.close()

    with database.transaction() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1


def test_keepalives_are_set_on_both_ends(database: Database):
    with database.transaction() as session:
        rows = session.execute(text("SELECT name, reset_val FROM pg_settings WHERE name LIKE 'tcp\\_%'"))
        assert {row.name: int(row.reset_val) for row in rows} == {
            "tcp_keepalives_idle": 10,
            "tcp_keepalives_interval": 5,
            "tcp_keepalives_count": 3,
            "tcp_user_timeout": 25_000,
        }


def test_options_in_the_database_url_are_kept(servers: EmbeddedServers):
    options = "-c application_name=custom -c tcp_keepalives_idle=60"
    url = make_url(servers.database_url).update_query_dict({"options": options})
    database = Database(url.render_as_string(hide_password=False))
    with database.transaction() as session:
        query = "SELECT current_setting('application_name'), reset_val "
        row = session.execute(text(query + "FROM pg_settings WHERE name = 'tcp_keepalives_idle'")).one()
        server = session.execute(text("SELECT reset_val FROM pg_settings WHERE name = 'tcp_keepalives_count'")).scalar()
    database.close()
    assert (row[0], row[1], server) == ("custom", "60", "3")


@pytest.fixture
def limited(database: Database) -> Iterator[Callable[..., Database]]:
    """Opens further pools to the same database, with other limits."""
    with ExitStack() as stack:

        def create(**limits: float) -> Database:
            other = Database(database.url, Limits(**limits))  # type: ignore[arg-type]
            stack.callback(other.close)
            return other

        yield create


def test_statement_over_its_timeout_raises_database_busy(limited: Callable[..., Database]):
    with pytest.raises(DatabaseBusy) as raised, limited(statement_timeout=0.05).transaction() as session:
        session.execute(text("SELECT pg_sleep(60)"))
    assert raised.value.retry_after


def test_wait_for_a_lock_over_its_timeout_raises_database_busy(database: Database, limited: Callable[..., Database]):
    with database.transaction() as holder:
        holder.execute(text("SELECT pg_advisory_xact_lock(77, 1)"))
        with pytest.raises(DatabaseBusy), limited(lock_timeout=0.05).transaction() as session:
            session.execute(text("SELECT pg_advisory_xact_lock(77, 1)"))


def test_wait_for_a_connection_over_its_timeout_raises_database_busy(limited: Callable[..., Database]):
    pool = limited(connections=1, connection_timeout=0.05)
    with pool.transaction() as holder:
        holder.execute(text("SELECT 1"))
        with pytest.raises(DatabaseBusy), pool.transaction() as session:
            session.execute(text("SELECT 1"))


def test_transaction_without_timeouts_has_none_and_the_next_one_has_them_again(limited: Callable[..., Database]):
    pool = limited(connections=1, statement_timeout=7, lock_timeout=2)
    seen = []
    for timeouts in (False, True):
        with pool.transaction(timeouts=timeouts) as session:
            seen += [session.execute(text(f"SHOW {name}_timeout")).scalar_one() for name in ("statement", "lock")]
    assert seen == ["0", "0", "7s", "2s"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [(QueryCanceled(), DatabaseBusy), (LockNotAvailable(), DatabaseBusy), (AdminShutdown(), DatabaseUnavailable)],
)
def test_error_of_the_driver_says_whether_postgres_is_busy(error: Exception, expected: type[DatabaseUnavailable]):
    assert type(unavailable(error)) is expected
