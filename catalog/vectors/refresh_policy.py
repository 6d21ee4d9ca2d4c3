"""When something that is made of a whole space is made anew: enough has changed, and it has been quiet for a while."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from catalog.vectors.repository import staleness

AFTER_FAILURE = 600.0  # seconds before one that failed is tried again by itself
REST = 5.0  # times what the last one took, before the next


@dataclass(frozen=True)
class Policy:
    """At least `rows` changes, or a `share` of the models if that is more; then `quiet` seconds without another, or
    `patience` seconds since the first where it is never quiet.
    """

    rows: int = 5
    share: float = 0.02
    quiet: float = 30.0
    patience: float = 600.0


def due(session: Session, policy: Policy, covered: Mapping[int, tuple[int, int]]) -> list[int]:
    """Of spaces with the last change that is covered and the number of models then, those that are due."""
    enough = {space: max(policy.rows, math.ceil(policy.share * models)) for space, (_, models) in covered.items()}
    found = staleness.changed(session, {space: seq for space, (seq, _) in covered.items()}, enough)
    return [
        each.space_id
        for each in found
        if each.changes >= enough[each.space_id]
        and (each.last_ago >= policy.quiet or each.first_ago >= policy.patience)
    ]
