from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, insert, inspect, make_url, text
from sqlalchemy.exc import IntegrityError

from app.deployment.embedded import EmbeddedServers
from catalog.auth import keys
from catalog.auth.viewer import hash_key
from catalog.database import Database
from catalog.errors import DatabaseUnavailable
from catalog.spaces import repository as spaces
from catalog.tables import Base, BaseActivations, Role, StoredVector, Vector
from tests.support.catalog import SPACE, put_revision

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

# the parts of a schema that are compared: all but the order of columns and Alembic's table
SCHEMA = {
    "columns": """
        SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default, is_identity
        FROM information_schema.columns WHERE table_schema = 'public'""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace""",
    "indexes": "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "sequences": "SELECT sequencename, start_value, increment_by FROM pg_sequences WHERE schemaname = 'public'",
}


@pytest.fixture
def engine(servers: EmbeddedServers) -> Iterator[Engine]:
    """An empty database on the tests' server."""
    name = f"deltadex_migrations_{uuid4().hex[:12]}"
    server = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine = create_engine(make_url(servers.database_url).set(database=name))
    yield engine
    engine.dispose()
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.fixture
def config(engine: Engine) -> Config:
    config = Config(toml_file=PYPROJECT)
    config.attributes["database_url"] = engine.url.render_as_string(hide_password=False)
    return config


def schema(engine: Engine) -> dict[str, set[tuple]]:
    with engine.connect() as connection:
        return {
            part: {tuple(row) for row in connection.execute(text(query)) if not str(row[0]).startswith("alembic")}
            for part, query in SCHEMA.items()
        }


def relations(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        query = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        return set(connection.execute(text(query)).scalars())


def test_upgrade_creates_every_table(engine: Engine, config: Config):
    command.upgrade(config, "head")

    assert set(inspect(engine).get_table_names()) == {*Base.metadata.tables, "alembic_version"}


def test_downgrade_leaves_only_the_alembic_table(engine: Engine, config: Config):
    command.upgrade(config, "head")
    command.downgrade(config, "base")

    assert relations(engine) == {"alembic_version", "alembic_version_pkc"}


def test_upgrade_after_downgrade_creates_the_same_schema(engine: Engine, config: Config):
    command.upgrade(config, "head")
    before = schema(engine)
    command.downgrade(config, "base")
    command.upgrade(config, "head")

    assert schema(engine) == before


def test_downgrade_cancels_queued_jobs_that_name_a_base(engine: Engine, config: Config):
    command.upgrade(config, "0002")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO models (repo_id, owner, source) VALUES ('o/n', 'o', 'hub')"))
        bases = "(VALUES (NULL), ('o/base')) AS bases (base)"
        connection.execute(text(f"INSERT INTO jobs (model_id, requested_base) SELECT id, base FROM models, {bases}"))

    command.downgrade(config, "0001")

    with engine.connect() as connection:
        states = connection.execute(text("SELECT state FROM jobs ORDER BY id")).scalars().all()
    assert states == ["queued", "cancelled"]


def test_keys_that_users_chose_become_keys_of_submitters(engine: Engine, config: Config):
    mine, yours = hash_key("a key that I chose"), hash_key("a key that you chose")
    command.upgrade(config, "0006")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO models (repo_id, owner, source) VALUES ('o/n', 'o', 'hub')"))
        for submitter in (mine, "anonymous"):
            connection.execute(
                text(f"INSERT INTO jobs (model_id, state, submitter) SELECT id, 'done', '{submitter}' FROM models")
            )
        for owner in (mine, yours):
            connection.execute(text(f"INSERT INTO model_access (model_id, submitter) SELECT id, '{owner}' FROM models"))

    command.upgrade(config, "head")

    database = Database(engine.url.render_as_string(hide_password=False))
    caller = keys.authenticate(database, "a key that I chose", None)
    with database.transaction() as session:
        rows = session.execute(text("SELECT hash, role FROM api_keys")).all()
        jobs = session.execute(text("SELECT count(*) FROM jobs")).scalar_one()
    database.close()
    assert (caller.role, caller.viewer.submitter) == (Role.SUBMITTER, mine)
    assert {tuple(row) for row in rows} == {(mine, "submitter"), (yours, "submitter")}
    assert jobs == 2


def test_upgrade_to_removals_keeps_models_vectors_and_crawls(engine: Engine, config: Config):
    command.upgrade(config, "0004")
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO models (repo_id, owner, source, state) VALUES ('o/n', 'o', 'hub', 'indexed')",
            "INSERT INTO revisions (model_id, sha, current, kind, base_repo, base_sha, base_evidence)"
            " SELECT id, 'a', true, 'lora', 'b', 'c', '{}' FROM models",
            "INSERT INTO spaces (key, feature, layer, probe_set, dtype, encoder_version, dimension)"
            " VALUES ('k', 'f', -1, 'p', 'float32', '1', 1)",
            "INSERT INTO vectors (space_id, model_id, revision_id, seq, dimension, data, norm, no_shift)"
            " SELECT spaces.id, model_id, revisions.id, 1, 1, '\\x00000000', 1, false FROM revisions, spaces",
            "INSERT INTO crawls (source, dry_run, queued) VALUES ('{}', false, 7)",
        ):
            connection.execute(text(statement))

    command.upgrade(config, "0005")

    with engine.begin() as connection:
        rows = connection.execute(text("SELECT removed_at, revision_id IS NULL FROM models JOIN vectors ON true"))
        assert rows.one() == (None, False)
        assert connection.execute(text("SELECT queued, blocked, include_removed FROM crawls")).one() == (7, 0, False)
        connection.execute(text("UPDATE vectors SET revision_id = NULL, deleted = true"))

    command.downgrade(config, "0004")

    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM vectors")).scalar_one() == 0


def test_upgrade_to_retention_keeps_archives_and_jobs_of_workers(engine: Engine, config: Config):
    command.upgrade(config, "0008")
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO models (repo_id, owner, source) VALUES ('merge:1@b', 'merge:1@b', 'merge')",
            "INSERT INTO archives (model_id, size, sha256) SELECT id, 3, '' FROM models",
            "INSERT INTO workers (host, pid, device) VALUES ('here', 1, 'cpu')",
            "INSERT INTO jobs (model_id, worker_id, state) SELECT models.id, workers.id, 'done' FROM models, workers",
        ):
            connection.execute(text(statement))

    command.upgrade(config, "0009")

    with engine.begin() as connection:
        age = connection.execute(text("SELECT now() - created_at < interval '1 hour' FROM archives")).scalar_one()
        assert age
        connection.execute(text("DELETE FROM workers"))
        assert connection.execute(text("SELECT worker_id FROM jobs")).scalar_one() is None

    command.downgrade(config, "0008")

    with engine.connect() as connection:
        assert connection.execute(text("SELECT size FROM archives")).scalar_one() == 3


def test_concurrent_upgrades_wait_for_each_other(engine: Engine, config: Config):
    code = "import sys; from app.deployment.processes import migrate; migrate(sys.argv[1])"
    argv = (sys.executable, "-c", code, config.attributes["database_url"])
    upgrades = [subprocess.Popen(argv) for _ in range(3)]
    assert [upgrade.wait() for upgrade in upgrades] == [0, 0, 0]

    assert set(inspect(engine).get_table_names()) == {*Base.metadata.tables, "alembic_version"}


def test_upgrade_gives_up_on_a_table_that_is_in_use_and_changes_nothing(engine: Engine, config: Config):
    command.upgrade(config, "0008")
    before = schema(engine)
    with engine.begin() as user:
        user.execute(text("SELECT count(*) FROM archives"))
        with pytest.raises(DatabaseUnavailable, match="another transaction has used a table for 10s"):
            command.upgrade(config, "head")
        assert schema(engine) == before

    command.upgrade(config, "head")


def test_alembic_detects_no_difference_from_the_orm(engine: Engine, config: Config):
    command.upgrade(config, "head")

    command.check(config)  # raises if the ORM and the migrations differ


def test_orm_and_migrations_create_the_same_schema(engine: Engine, config: Config):
    Base.metadata.create_all(engine)
    by_orm = schema(engine)
    Base.metadata.drop_all(engine)
    command.upgrade(config, "head")

    by_migrations = schema(engine)
    for part in SCHEMA:
        assert by_migrations[part] == by_orm[part]


@pytest.mark.parametrize("table", ["vectors", "base_activations", "stored_vectors"])
def test_vectors_are_stored_uncompressed_and_out_of_line(database: Database, table: str):
    query = "SELECT attstorage FROM pg_attribute WHERE attrelid = cast(:table AS regclass) AND attname = 'data'"
    with database.transaction() as session:
        assert session.execute(text(query), {"table": table}).scalar_one() in ("e", b"e")


def put_vector(database: Database, size: int) -> None:
    """Insert a vector of four entries with `size` bytes of data."""
    with database.transaction() as session:
        revision = put_revision(session, "owner/model")
        space = spaces.ensure(session, SPACE, 4)
        values = {"space_id": space.id, "model_id": revision.model_id, "revision_id": revision.id, "seq": 1}
        values |= {"dimension": 4, "data": b"\0" * size, "norm": 1, "no_shift": False}
        session.execute(insert(Vector).values(values))


def put_activations(database: Database, size: int) -> None:
    """Insert activations of four entries for three probes with `size` bytes of data."""
    with database.transaction() as session:
        space = spaces.ensure(session, SPACE, 4)
        values = {"space_id": space.id, "base_repo": "a/b", "base_sha": "c", "noise_floor": 0}
        values |= {"probes": 3, "dimension": 4, "data": b"\0" * size}
        session.execute(insert(BaseActivations).values(values))


def put_stored(database: Database, size: int) -> None:
    """Insert a stored vector of four entries with `size` bytes of data."""
    with database.transaction() as session:
        space = spaces.ensure(session, SPACE, 4)
        values = {
            "space_id": space.id,
            "name": "mine",
            "origin": "vector",
            "dimension": 4,
            "data": b"\0" * size,
            "norm": 1,
        }
        session.execute(insert(StoredVector).values(values))


@pytest.mark.parametrize(("put", "size"), [(put_vector, 16), (put_activations, 48), (put_stored, 16)])
def test_data_of_the_right_length_is_stored(database: Database, put: Callable[[Database, int], None], size: int):
    put(database, size)


@pytest.mark.parametrize("size", [0, 15, 17])
def test_vectors_of_the_wrong_length_are_rejected(database: Database, size: int):
    with pytest.raises(IntegrityError, match="ck_vectors_length"):
        put_vector(database, size)


@pytest.mark.parametrize("size", [0, 15, 17])
def test_stored_vectors_of_the_wrong_length_are_rejected(database: Database, size: int):
    with pytest.raises(IntegrityError, match="ck_stored_vectors_length"):
        put_stored(database, size)


@pytest.mark.parametrize("size", [0, 16, 47, 49])
def test_activations_of_the_wrong_length_are_rejected(database: Database, size: int):
    with pytest.raises(IntegrityError, match="ck_base_activations_length"):
        put_activations(database, size)
