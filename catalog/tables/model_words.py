"""How names, tags, cards and search queries are split into words."""

from __future__ import annotations

import re

from sqlalchemy import DDL, event

from catalog.tables.base import Base

MAX_WORDS = 16  # of a query; further words are ignored

# ASCII punctuation separates words; other alphabets are left to Postgres. In names and tags, runs of digits are also
# words of their own: `smollm2-135m` is found by smollm2, smollm, 135m and 135.
MODEL_WORDS = r"""
CREATE OR REPLACE FUNCTION model_words(repo_id text, tags text[], card text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    WITH texts AS (
        SELECT regexp_replace(repo_id, '[ -/:-@[-`{-~\s]+', ' ', 'g') AS name,
            regexp_replace(array_to_string(tags, ' '), '[ -/:-@[-`{-~\s]+', ' ', 'g') AS labels,
            regexp_replace(coalesce(card, ''), '[ -/:-@[-`{-~\s]+', ' ', 'g') AS card
    )
    SELECT setweight(to_tsvector('simple', name || ' ' || regexp_replace(name, '([0-9]+)', ' \1 ', 'g')), 'A')
        || setweight(to_tsvector('simple', labels || ' ' || regexp_replace(labels, '([0-9]+)', ' \1 ', 'g')), 'B')
        || setweight(to_tsvector('simple', texts.card), 'C')
    FROM texts
$$
"""

_SEPARATORS = re.compile(r"[ -/:-@\[-`{-~\s\0]+")

event.listen(Base.metadata, "before_create", DDL(MODEL_WORDS.replace("%", "%%")))


def query(text: str) -> str | None:
    """A `tsquery` of the configuration `simple` that requires every word, the last as a prefix. None: no words."""
    words = [word for word in _SEPARATORS.split(text.lower()) if word][:MAX_WORDS]
    return " & ".join(f"'{word}'" for word in words) + ":*" if words else None
