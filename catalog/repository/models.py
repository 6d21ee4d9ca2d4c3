"""Models and their revisions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import BigInteger, any_, func, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session, contains_eager, joinedload

from catalog.errors import ModelNotFound
from catalog.tables import Model, ModelState, Revision, Source, change_seq


@dataclass(frozen=True)
class Metadata:
    """What the Hub tells of a repo; None is what it does not."""

    licence: str | None = None
    tags: tuple[str, ...] = ()
    downloads: int | None = None
    likes: int | None = None
    hub_updated_at: datetime | None = None


def ensure(session: Session, repo_id: str, source: Source, folder: str | None = None) -> Model:
    """The model of that name, made if there is none. The stored folder is left as it is."""
    statement = insert(Model).values(
        repo_id=repo_id, owner=repo_id.split("/", maxsplit=1)[0], source=source, folder=folder
    )
    session.execute(statement.on_conflict_do_nothing(index_elements=["repo_id"]))
    return session.scalars(select(Model).where(Model.repo_id == repo_id)).one()


def get(session: Session, repo_id: str) -> Model:
    """The model with its current revision; raises `ModelNotFound`."""
    statement = select(Model).where(Model.repo_id == repo_id).options(joinedload(Model.revision))
    model = session.scalars(statement).one_or_none()
    if model is None:
        raise ModelNotFound(f"{repo_id} is not in this catalog. Submit it with POST /v1/models or `deltadex add`.")
    return model


def page(
    session: Session,
    *,
    base: str | None = None,
    owner: str | None = None,
    state: ModelState | None = None,
    after: int = 0,
    limit: int = 50,
) -> list[Model]:
    """Up to `limit` models with an id above `after`, oldest first, with their current revisions."""
    statement = (
        select(Model)
        .outerjoin(Model.revision)
        .options(contains_eager(Model.revision))
        .where(Model.id > after)
        .order_by(Model.id)
        .limit(limit)
    )
    if base is not None:
        statement = statement.where(Revision.base_repo == base)
    if owner is not None:
        statement = statement.where(Model.owner == owner)
    if state is not None:
        statement = statement.where(Model.state == state)
    return list(session.scalars(statement))


def by_ids(session: Session, ids: Iterable[int]) -> dict[int, Model]:
    """Models by id, with their current revisions, in one statement."""
    # an array: there may be more of them than a statement may have parameters
    wanted = any_(literal(list(ids), ARRAY(BigInteger)))
    statement = select(Model).where(Model.id == wanted).options(joinedload(Model.revision))
    return {model.id: model for model in session.scalars(statement)}


def set_state(session: Session, model_id: int, state: ModelState) -> None:
    session.execute(update(Model).where(Model.id == model_id).values(state=state))


def mark_failed(session: Session, model_ids: Sequence[int]) -> None:
    """A model that was never stored is failed; one that is indexed stays so when an update of it fails."""
    pending = Model.id.in_(model_ids) & (Model.state == ModelState.PENDING)
    session.execute(update(Model).where(pending).values(state=ModelState.FAILED))


def make_current(
    session: Session, model_id: int, sha: str, *, kind: str, base_repo: str, base_sha: str, evidence: dict
) -> Revision:
    """The revision `sha`, made if needed, as the model's current one."""
    session.execute(update(Revision).where(Revision.model_id == model_id, Revision.current).values(current=False))
    values = {"kind": kind, "base_repo": base_repo, "base_sha": base_sha, "base_evidence": evidence, "current": True}
    announce(session, model_id)
    statement = insert(Revision).values(model_id=model_id, sha=sha, **values)
    statement = statement.on_conflict_do_update(index_elements=["model_id", "sha"], set_=values)
    return session.scalars(statement.returning(Revision), execution_options={"populate_existing": True}).one()


def restore(session: Session, revision: Revision) -> None:
    """Make a revision that was embedded before the current one again."""
    session.execute(
        update(Revision).where(Revision.model_id == revision.model_id, Revision.current).values(current=False)
    )
    session.execute(update(Revision).where(Revision.id == revision.id).values(current=True))
    announce(session, revision.model_id)


def describe(session: Session, model_id: int, metadata: Metadata) -> None:
    """Store what the Hub tells now. The caller holds `vectors.lock_feed`."""
    values = asdict(metadata) | {"tags": list(metadata.tags), "seq": change_seq.next_value()}
    session.execute(update(Model).where(Model.id == model_id).values(**values))


def set_cluster(session: Session, model_id: int, cluster: int | None) -> None:
    """What searches filter by. The caller announces the model in the same transaction."""
    session.execute(update(Model).where(Model.id == model_id).values(cluster=cluster))


def set_card(session: Session, model_id: int, words: str | None) -> None:
    """The words of its card, for clusters to be named by."""
    session.execute(update(Model).where(Model.id == model_id).values(card=words))


def announce(session: Session, model_id: int) -> None:
    """Have every process read anew what it filters this model by. The caller holds `vectors.lock_feed`."""
    session.execute(update(Model).where(Model.id == model_id).values(seq=change_seq.next_value()))


def ids(session: Session, repo_ids: Iterable[str]) -> list[int]:
    """Of those models that are known."""
    return list(session.scalars(select(Model.id).where(Model.repo_id.in_(list(repo_ids)))))


def counts(session: Session) -> dict[ModelState, int]:
    """How many models are in each state."""
    rows = session.execute(select(Model.state, func.count()).group_by(Model.state))
    return dict.fromkeys(ModelState, 0) | {ModelState(state): count for state, count in rows}
