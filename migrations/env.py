"""Alembic's entry point. The database URL comes from the settings, or from the caller's `database_url` attribute."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine

from catalog.settings import settings
from catalog.tables import Base


def run() -> None:
    url = context.config.attributes.get("database_url") or settings().require_database_url()
    engine = create_engine(url)
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
