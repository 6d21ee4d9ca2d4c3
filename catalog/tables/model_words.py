"""How names, tags and cards are split into words, the same way when they are stored and when they are asked for."""

from __future__ import annotations

import re

from sqlalchemy import DDL, event

from catalog.tables.base import Base

MAX_WORDS = 16  # of a question that count

# Whatever is punctuation in ASCII stands between words; letters of other alphabets are left to Postgres. Of names and
# tags the digits are words too: `smollm2-135m` is found by smollm2, smollm, 135m and 135.
MODEL_WORDS = r"""
CREATE OR REPLACE FUNCTION model_words(repo_id text, tags text[], card text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    WITH told AS (
        SELECT regexp_replace(repo_id, '[ -/:-@[-`{-~\s]+', ' ', 'g') AS name,
            regexp_replace(array_to_string(tags, ' '), '[ -/:-@[-`{-~\s]+', ' ', 'g') AS labels,
            regexp_replace(coalesce(card, ''), '[ -/:-@[-`{-~\s]+', ' ', 'g') AS card
    )
    SELECT setweight(to_tsvector('simple', name || ' ' || regexp_replace(name, '([0-9]+)', ' \1 ', 'g')), 'A')
        || setweight(to_tsvector('simple', labels || ' ' || regexp_replace(labels, '([0-9]+)', ' \1 ', 'g')), 'B')
        || setweight(to_tsvector('simple', told.card), 'C')
    FROM told
$$
"""

_BETWEEN = re.compile(r"[ -/:-@\[-`{-~\s\0]+")

event.listen(Base.metadata, "before_create", DDL(MODEL_WORDS.replace("%", "%%")))


def query(asked: str) -> str | None:
    """A `tsquery` of the configuration `simple`: every word has to be there, the last may go on. None: no word."""
    found = [word for word in _BETWEEN.split(asked.lower()) if word][:MAX_WORDS]
    return " & ".join(f"'{word}'" for word in found) + ":*" if found else None
