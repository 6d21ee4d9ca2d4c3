"""The refresh policy: when clusters and maps are computed again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from catalog.vectors.repository import staleness

RETRY_DELAY = 600.0  # seconds after a failed attempt before the next one
COOLDOWN_FACTOR = 5.0  # pause after a computation, as a multiple of its duration


@dataclass(frozen=True)
class RefreshPolicy:
    """Refresh after `min_changes` changes, or a `share` of the models if that is more, once no change has come for
    `debounce` seconds, or at the latest `max_wait` seconds after the first change.
    """

    min_changes: int = 5
    share: float = 0.02
    debounce: float = 30.0
    max_wait: float = 600.0


def list_due(session: Session, policy: RefreshPolicy, covered: Mapping[int, tuple[int, int]]) -> list[int]:
    """The ids of the spaces that are due. `covered` has the last covered seq and the number of models of each space."""
    thresholds = {
        space_id: max(policy.min_changes, math.ceil(policy.share * models)) for space_id, (_, models) in covered.items()
    }
    changed = staleness.count_changes(session, {space_id: seq for space_id, (seq, _) in covered.items()}, thresholds)
    return [
        space.space_id
        for space in changed
        if space.changes >= thresholds[space.space_id]
        and (space.last_ago >= policy.debounce or space.first_ago >= policy.max_wait)
    ]
