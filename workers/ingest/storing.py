"""Storage of encoded fine-tunes in the catalog."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from catalog.clusters.assignment import ClusterAssigner
from catalog.clusters.repository import members as cluster_members
from catalog.jobs import private_models
from catalog.jobs.admission import becomes_current
from catalog.models.repository import models
from catalog.reindexes.repository import reindexes
from catalog.spaces import repository as spaces
from catalog.spaces.contract import Space
from catalog.tables import ACTIVE_REINDEX, ModelState, Revision, SpaceRow
from catalog.vectors.repository import feed
from workers.bases.residents import Resident
from workers.bases.resolver import ResolvedBase
from workers.encoding.encoder import EXPLAINED_FEATURE, Encoding
from workers.ingest.fetcher import Fetched

SpaceSelector = Callable[[Space, int], SpaceRow]  # from a contract and a dimension to the space to store in


class EncodingWriter:
    """Stores the measurements of fine-tunes. The caller holds `feed.lock_feed`."""

    def __init__(self) -> None:
        self._cluster_assigner = ClusterAssigner()

    def store(self, session: Session, resident: Resident, fetched: Fetched, encoding: Encoding) -> None:
        """Make the measured revision current and store its vectors in the write targets. A revision that does not
        become current is stored as history, and nothing else of its model changes. For the job of a reindex, only store
        vectors in the new spaces of the reindex: nothing else changes before the cutover.
        """
        if fetched.job.remeasures:
            self._store_for_reindex(session, resident, fetched, encoding)
        elif _becomes_current(session, fetched):
            self._make_current(session, resident, fetched, encoding)
        else:
            self._store_past(session, resident, fetched, encoding)

    def _make_current(self, session: Session, resident: Resident, fetched: Fetched, encoding: Encoding) -> None:
        """The only way in which a revision becomes current."""
        description = _description(fetched, encoding)
        revision = models.store_revision(session, fetched.job.model_id, fetched.sha, current=True, **description)
        declared_sha = fetched.base.sha if fetched.base.at_revision else None
        feed.remove_from_other_bases(session, fetched.job.model_id, fetched.base.repo, declared_sha)
        cluster_members.remove_from_other_bases(session, fetched.job.model_id, fetched.base.repo)
        if fetched.metadata is not None:
            models.update_metadata(session, fetched.job.model_id, fetched.metadata)
        if fetched.card is not None:
            models.set_card(session, fetched.job.model_id, fetched.card)

        write_target = partial(_write_target, session, fetched.base)
        private = fetched.job.model.private
        shifted = self._store_vectors(session, resident, revision, encoding, write_target, private=private)
        private_models.finish_private_job(session, fetched.job)
        models.set_state(session, fetched.job.model_id, ModelState.INDEXED if shifted else ModelState.NO_SHIFT)

    def _store_past(self, session: Session, resident: Resident, fetched: Fetched, encoding: Encoding) -> None:
        description = _description(fetched, encoding)
        revision = models.store_revision(session, fetched.job.model_id, fetched.sha, current=False, **description)
        for feature, vector in encoding.vectors.items():
            contract = resident.encoder.space(feature)
            space = _write_target(session, fetched.base, contract, vector.size)
            norm = encoding.norms[feature]
            no_shift = norm <= resident.noise_floor[feature]
            feed.store_outside(session, space, revision, vector, norm=norm, no_shift=no_shift)
        private_models.finish_private_job(session, fetched.job)

    def _store_for_reindex(self, session: Session, resident: Resident, fetched: Fetched, encoding: Encoding) -> None:
        """Store vectors in the new spaces of a reindex. Nothing is stored if the reindex has ended, or if another
        revision of the model is current now, whose vectors will be backfilled.
        """
        reindex = reindexes.get(session, fetched.job.reindex_id or 0)
        revision = models.find_current_revision(session, fetched.job.model_id)
        if reindex.state not in ACTIVE_REINDEX or revision is None or revision.sha != fetched.sha:
            return
        base = fetched.base
        if base.at_revision or (revision.base_repo, revision.base_sha) != (base.repo, base.sha):
            reindexes.record_move(
                session,
                reindex.id,
                revision,
                kind=fetched.finetune.kind,
                base_repo=fetched.base.repo,
                base_sha=fetched.base.sha,
                evidence=fetched.base.evidence,
            )

        def reindex_space(space: Space, dimension: int) -> SpaceRow:
            if not base.may_serve(space):  # the cutover replaces the space of the usual commit
                return _write_target(session, base, space, dimension)
            return spaces.ensure(session, replace(space, edition=reindex.id), dimension)

        self._store_vectors(session, resident, revision, encoding, reindex_space)

    def _store_vectors(
        self,
        session: Session,
        resident: Resident,
        revision: Revision,
        encoding: Encoding,
        select_space: SpaceSelector,
        *,
        private: bool = False,
    ) -> bool:
        """Store the vectors of all features. Returns whether any of them is above the noise floor."""
        shifted = False
        base = resident.encoder.base
        for feature, vector in encoding.vectors.items():
            norm = encoding.norms[feature]
            no_shift = norm <= resident.noise_floor[feature]
            shifted = shifted or not no_shift
            contract = resident.encoder.space(feature)
            space = select_space(contract, vector.size)
            spaces.copy_base_measurement(session, contract, space, base.repo, base.sha)
            explain = feature == EXPLAINED_FEATURE
            explanation = asdict(encoding.explanation) if encoding.explanation and explain else None
            feed.store(session, space, revision, vector, norm=norm, no_shift=no_shift, explanation=explanation)
            if not private:  # private models are in no cluster, because clusters are public
                self._cluster_assigner.assign(session, space, revision.model_id, None if no_shift else vector)
        return shifted


def _becomes_current(session: Session, fetched: Fetched) -> bool:
    """Whether the measured revision becomes current, or is it already: then it was measured again."""
    if becomes_current(fetched.job.model, is_head=fetched.is_head):
        return True
    current = models.find_current_revision(session, fetched.job.model_id)
    return current is not None and current.sha == fetched.sha


def _description(fetched: Fetched, encoding: Encoding) -> dict[str, Any]:
    """The columns of a measured revision."""
    return {
        "kind": fetched.finetune.kind,
        "base_repo": fetched.base.repo,
        "base_sha": fetched.base.sha,
        "evidence": fetched.base.evidence,
        "facts": fetched.finetune.facts | {"notes": [*fetched.base.notes, *fetched.finetune.notes, *encoding.notes]},
    }


def _write_target(session: Session, base: ResolvedBase, space: Space, dimension: int) -> SpaceRow:
    """The space of a job outside a reindex."""
    return spaces.get_write_target(session, space, dimension, may_serve=base.may_serve(space))
