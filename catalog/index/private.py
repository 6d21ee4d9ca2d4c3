"""Which private models each viewer may see, in memory. Postgres checks again when the models of an answer are read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np

from catalog.auth.viewer import Viewer
from catalog.models.repository.attributes import Attributes


class PrivateModels:
    """Private models by id, and the ids that each API key (by its hash) may see."""

    def __init__(self) -> None:
        self._models: dict[int, Attributes] = {}
        self._by_key: dict[str, set[int]] = defaultdict(set)

    def __bool__(self) -> bool:
        return bool(self._models)

    def update(self, changes: Sequence[Attributes]) -> None:
        """Apply changes. A model stays private or public for good, but the keys that may see it can change."""
        for change in changes:
            if change.viewers is None:
                continue
            previous = self._models.get(change.model_id)
            for key in (previous.viewers or ()) if previous else ():
                self._by_key[key].discard(change.model_id)
            for key in change.viewers:
                self._by_key[key].add(change.model_id)
            self._models[change.model_id] = change

    def visible_to(self, viewer: Viewer) -> Collection[int]:
        if viewer.is_admin:
            return self._models.keys()
        return self._by_key.get(viewer.submitter, ()) if viewer.submitter is not None else ()

    def hide(self, passing: np.ndarray, visible: Collection[int]) -> None:
        """Set `passing`, bool (n,) by model id, to false for the private models that are not `visible`, and for the
        public counterparts of the `visible` ones.
        """
        hidden = self._models.keys() - set(visible)
        counterparts = {self._models[model_id].public_counterpart for model_id in visible} - {None}
        model_ids = np.array([*hidden, *counterparts], np.int64)
        passing[model_ids[model_ids < len(passing)]] = False
