"""Loading the members of selected sets into memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from catalog.database import Database
from catalog.errors import NoCandidates, Refused
from catalog.models.repository import models
from catalog.selections.strategies import Candidates, Select
from catalog.tables import Model
from workers.encoding.resident_base import ResidentBase
from workers.ingest.fetcher import Fetcher
from workers.process.cancellation import raise_if_cancelled
from workers.process.file_locks import FileLocks
from workers.selections.weights import Adapter, fit_adapter

MAX_REFUSED = 20  # a selection fails if more models cannot be loaded


@dataclass(frozen=True, eq=False)
class Member:
    """An adapter of a set, and its cosine to the task."""

    adapter: Adapter
    similarity: float


class MemberLoader:
    """Selects sets of candidates that can be loaded. Other candidates are replaced; `left_out` lists their names with
    an error code.
    """

    def __init__(
        self,
        database: Database,
        fetcher: Fetcher,
        base: ResidentBase,
        candidates: Candidates,
        *,
        max_refused: int = MAX_REFUSED,
    ) -> None:
        self._database = database
        self._fetcher = fetcher
        self._base = base
        self._candidates = candidates
        self._max_refused = max_refused
        self._loaded: dict[int, Adapter] = {}
        self.left_out: dict[str, str] = {}

    def load(self, strategies: Mapping[str, Select], count: int) -> dict[str, list[Member]]:
        """The set of each strategy, all of them in memory.

        Raises `NoCandidates`, `Cancelled`, and transient errors of fetching.
        """
        while True:
            if not len(self._candidates) or len(self.left_out) > self._max_refused:
                raise NoCandidates(self._reason())
            sets = {name: select(self._candidates, count).tolist() for name, select in strategies.items()}
            refused = self._load({model_id for ids in sets.values() for model_id in ids})
            if not refused:
                cosines = dict(zip(self._candidates.ids.tolist(), self._candidates.cosines.tolist(), strict=True))
                return {
                    name: [Member(self._loaded[model_id], cosines[model_id]) for model_id in ids]
                    for name, ids in sets.items()
                }
            self._candidates = self._candidates.without(refused)

    def _load(self, model_ids: Collection[int]) -> set[int]:
        """Keep exactly these models in memory. Returns the ids of those that cannot be loaded."""
        self._loaded = {model_id: self._loaded[model_id] for model_id in model_ids if model_id in self._loaded}
        missing = sorted(set(model_ids) - set(self._loaded))
        with self._database.transaction() as session:
            rows: Mapping[int, Model] = models.get_by_ids(session, missing)
        refused = set(missing) - set(rows)  # deleted since they were listed
        for model_id, model in rows.items():
            raise_if_cancelled()
            try:
                with FileLocks() as locks:
                    finetune = self._fetcher.fetch_current(model, locks)
                self._loaded[model_id] = fit_adapter(model.repo_id, finetune, self._base)
            except Refused as error:
                self.left_out[model.repo_id] = error.code
                refused.add(model_id)
        return refused

    def _reason(self) -> str:
        if self.left_out:
            return f"{len(self.left_out)} of the selected models cannot be loaded: add or refresh models of this base."
        return (
            "No public plain LoRA adapter of this base is indexed that has all team tags of the selection: add or tag "
            "some, or create the task on another base."
        )
