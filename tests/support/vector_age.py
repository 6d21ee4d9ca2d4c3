"""Vectors that were stored some time ago."""

from __future__ import annotations

from sqlalchemy import text

from catalog.database import Database


def age(database: Database, seconds: float, models: str = "%") -> None:
    """Make it so long ago that the vectors were stored."""
    statement = """
        UPDATE vectors SET created_at = now() - make_interval(secs => :seconds)
        FROM models WHERE models.id = model_id AND repo_id LIKE :models
    """
    with database.transaction() as session:
        session.execute(text(statement), {"seconds": seconds, "models": models})
