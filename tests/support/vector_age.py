"""Backdating of stored vectors."""

from __future__ import annotations

from sqlalchemy import text

from catalog.database import Database


def age_vectors(database: Database, seconds: float, models: str = "%") -> None:
    """Backdate by `seconds` the vectors of models whose repo id matches the LIKE pattern `models`."""
    statement = """
        UPDATE vectors SET created_at = now() - make_interval(secs => :seconds)
        FROM models WHERE models.id = model_id AND repo_id LIKE :models
    """
    with database.transaction() as session:
        session.execute(text(statement), {"seconds": seconds, "models": models})
