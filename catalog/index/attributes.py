"""The attributes of all models that searches filter by, as in-memory columns that follow the changes in Postgres."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from catalog.auth.viewer import PUBLIC, Viewer
from catalog.index.columns import ClusterColumn, NumberColumn, TagColumn, TextColumn
from catalog.index.filters import NO_FILTERS, Filters
from catalog.index.private import PrivateModels
from catalog.models.repository.attributes import Attributes

CACHED_MASKS = 64


class AttributeColumns:
    """Attributes of all models, indexed by model id. Thread-safe."""

    def __init__(self) -> None:
        self.seq = 0  # of the last change that was applied
        self._size = 0  # the greatest model id plus one
        self._texts = {name: TextColumn() for name in ("owner", "base", "kind", "license")}
        self._numbers = {name: NumberColumn() for name in ("downloads", "likes", "updated")}
        self._clusters = ClusterColumn()
        self.runs: frozenset[int] = frozenset()  # the cluster runs that models are filtered by
        self._tags, self._team_tags = TagColumn(), TagColumn()
        self._private = PrivateModels()
        self._masks: OrderedDict[tuple[Filters, Viewer], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def show_runs(self, runs: Iterable[int], members: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> None:
        """Filter by the clusters of these runs from now on. `members` has the models and clusters of each new one."""
        with self._lock:
            for run in self.runs.difference(runs):
                self._clusters.hide(run)
            for run in sorted(members):
                self._clusters.show(run, *members[run])
            self.runs = frozenset(runs)
            self._masks.clear()

    def apply(self, changes: Sequence[Attributes]) -> None:
        """Apply the next changes, in the order of the feed."""
        newest = list({change.model_id: change for change in changes}.values())
        model_ids = np.array([change.model_id for change in newest], np.int64)
        with self._lock:
            for name, texts in self._texts.items():
                texts.set(model_ids, [getattr(change, name) for change in newest])
            for name, numbers in self._numbers.items():
                numbers.set(model_ids, [getattr(change, name) for change in newest])
            self._clusters.set(model_ids, [change.run for change in newest], [change.cluster for change in newest])
            self._tags.set(model_ids, [sorted(set(change.tags)) for change in newest])
            self._team_tags.set(model_ids, [change.team_tags for change in newest])
            self._private.update(newest)
            self._size = max(self._size, int(model_ids.max()) + 1)
            self._masks.clear()
            self.seq = changes[-1].seq

    def mask(self, filters: Filters, viewer: Viewer = PUBLIC) -> np.ndarray | None:
        """The models that pass the filters and that the viewer may see: bool (n + 1,) by model id. The last entry, for
        all greater ids, is false. The array is cached and must not be changed. None: every model.
        """
        with self._lock:
            if filters == NO_FILTERS and not self._private:
                return None
            visible = self._private.visible_to(viewer)
            key = (filters, viewer if visible else PUBLIC)  # viewers without private models share one mask
            if key in self._masks:
                self._masks.move_to_end(key)
                return self._masks[key]
            passing = self._passing(filters)
            self._private.hide(passing, visible)
            self._masks[key] = mask = np.append(passing, False)
            if len(self._masks) > CACHED_MASKS:
                self._masks.popitem(last=False)
            return mask

    def _passing(self, filters: Filters) -> np.ndarray:
        size = self._size
        passing = self._texts["owner"].has_value(size)  # an id without an owner is not a model
        texts = (("base", filters.bases), ("owner", filters.owners), ("kind", filters.kinds))
        for name, values in (*texts, ("license", filters.licenses)):
            if values:
                passing &= self._texts[name].any_of(values, size)
        if filters.not_owners:
            passing &= ~self._texts["owner"].any_of(filters.not_owners, size)
        if filters.clusters:
            passing &= self._clusters.any_of(filters.clusters, size)
        since = filters.updated_since.timestamp() if filters.updated_since else None
        for name, minimum in (("downloads", filters.min_downloads), ("likes", filters.min_likes), ("updated", since)):
            if minimum is not None:
                passing &= self._numbers[name].at_least(minimum, size)
        if filters.tags:
            passing &= self._tags.all_of(filters.tags, size)
        if filters.team_tags:
            passing &= self._team_tags.all_of(filters.team_tags, size)
        return passing
