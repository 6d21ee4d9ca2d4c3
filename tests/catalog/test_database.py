from __future__ import annotations

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import IntegrityError

from app.deployment.embedded import EmbeddedServers
from catalog.database import Database, after_commit
from catalog.errors import DatabaseUnavailable, ModelNotFound
from catalog.models.repository import models
from catalog.tables import Model, Source


def test_what_a_transaction_wrote_is_there_afterwards(database: Database):
    with database.transaction() as session:
        models.ensure(session, "a/b", Source.HUB)

    with database.transaction() as session:
        assert models.get(session, "a/b").repo_id == "a/b"


def test_an_exception_takes_everything_back_and_passes_through(database: Database):
    def fails() -> None:
        with database.transaction() as session:
            models.ensure(session, "a/b", Source.HUB)
            raise KeyError("x")

    with pytest.raises(KeyError):
        fails()
    with pytest.raises(ModelNotFound), database.transaction() as session:
        models.get(session, "a/b")


def test_rows_can_be_read_after_the_commit(database: Database):
    with database.transaction() as session:
        model = models.ensure(session, "a/b", Source.HUB)
    assert model.repo_id == "a/b"


def test_a_callback_runs_once_the_commit_is_visible_to_others(database: Database):
    seen = []

    def look() -> None:
        with database.transaction() as other:
            seen.append(models.get(other, "a/b").repo_id)

    with database.transaction() as session:
        after_commit(session, look)
        models.ensure(session, "a/b", Source.HUB)
        assert seen == []
    assert seen == ["a/b"]


def test_callbacks_run_in_their_order(database: Database):
    order: list[int] = []
    with database.transaction() as session:
        for number in range(3):
            after_commit(session, lambda number=number: order.append(number))
    assert order == [0, 1, 2]


def test_no_callback_runs_when_the_block_raises(database: Database):
    called: list[int] = []

    def fails() -> None:
        with database.transaction() as session:
            after_commit(session, lambda: called.append(1))
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert called == []


def test_no_callback_runs_when_the_commit_itself_fails(database: Database):
    called: list[int] = []

    def fails() -> None:
        with database.transaction() as session:
            after_commit(session, lambda: called.append(1))
            session.add(Model(repo_id="a/b", owner="a", source="nowhere"))  # flushed by the commit, refused by a check

    with pytest.raises(IntegrityError):
        fails()
    assert called == []


def test_a_server_that_is_not_there_is_unavailable(servers: EmbeddedServers, tmp_path):
    nobody = make_url(servers.database_url).set(host=None, port=None, query={"host": str(tmp_path)})
    database = Database(nobody.render_as_string(hide_password=False))
    with pytest.raises(DatabaseUnavailable), database.transaction() as session:
        session.execute(text("SELECT 1"))


def test_a_connection_that_is_cut_in_the_middle_is_unavailable(database: Database):
    called: list[int] = []

    def is_cut() -> None:
        with database.transaction() as session:
            after_commit(session, lambda: called.append(1))
            pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with database.transaction() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 60000)"), {"pid": pid})
            session.execute(text("SELECT 1"))

    with pytest.raises(DatabaseUnavailable):
        is_cut()
    assert called == []


def test_the_next_transaction_after_a_cut_gets_a_new_connection(database: Database):
    with database.transaction() as session:
        pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
    cutter = Database(database.url)
    with cutter.transaction() as session:
        session.execute(text("SELECT pg_terminate_backend(:pid, 60000)"), {"pid": pid})
    cutter.close()

    with database.transaction() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1


def test_both_ends_look_whether_the_other_is_still_there(database: Database):
    with database.transaction() as session:
        told = session.execute(text("SELECT name, reset_val FROM pg_settings WHERE name LIKE 'tcp\\_%'"))
        assert {row.name: int(row.reset_val) for row in told} == {
            "tcp_keepalives_idle": 10,
            "tcp_keepalives_interval": 5,
            "tcp_keepalives_count": 3,
            "tcp_user_timeout": 25_000,
        }


def test_options_that_the_address_gives_are_kept(servers: EmbeddedServers):
    options = "-c application_name=mine -c tcp_keepalives_idle=60"
    given = make_url(servers.database_url).update_query_dict({"options": options})
    database = Database(given.render_as_string(hide_password=False))
    with database.transaction() as session:
        asked = "SELECT current_setting('application_name'), reset_val "
        told = session.execute(text(asked + "FROM pg_settings WHERE name = 'tcp_keepalives_idle'")).one()
        server = session.execute(text("SELECT reset_val FROM pg_settings WHERE name = 'tcp_keepalives_count'")).scalar()
    database.close()
    assert (told[0], told[1], server) == ("mine", "60", "3")
