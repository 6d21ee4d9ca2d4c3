"""Which models are hidden from whom, as a process knows it. Names are asked of Postgres, which has the last word."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np

from catalog.auth.viewer import Viewer
from catalog.models.repository.attributes import Attributes


class PrivateModels:
    """Private models by id, and of each key (its hash) those that it may see."""

    def __init__(self) -> None:
        self._models: dict[int, Attributes] = {}
        self._of_key: dict[str, set[int]] = defaultdict(set)

    def __bool__(self) -> bool:
        return bool(self._models)

    def put(self, changes: Sequence[Attributes]) -> None:
        """A model never changes from private to public or back; those that may see it do."""
        for each in changes:
            if each.viewers is None:
                continue
            before = self._models.get(each.model_id)
            for key in (before.viewers or ()) if before else ():
                self._of_key[key].discard(each.model_id)
            for key in each.viewers:
                self._of_key[key].add(each.model_id)
            self._models[each.model_id] = each

    def seen_by(self, viewer: Viewer) -> Collection[int]:
        if viewer.everything:
            return self._models.keys()
        return self._of_key.get(viewer.submitter, ()) if viewer.submitter is not None else ()

    def hide(self, passing: np.ndarray, seen: Collection[int]) -> None:
        """Of the models that pass, bool (n,), leave of the private ones those that are `seen`, and not the public ones
        in whose place these stand.
        """
        hidden = self._models.keys() - set(seen)
        twins = (self._models[each].twin for each in seen)
        rows = np.fromiter((*hidden, *(each for each in twins if each is not None)), np.int64)
        passing[rows[rows < len(passing)]] = False
