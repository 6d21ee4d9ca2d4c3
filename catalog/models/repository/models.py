"""Models and their revisions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    Select,
    Text,
    any_,
    cast,
    delete,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, REGCONFIG, insert
from sqlalchemy.orm import Session, contains_eager, joinedload
from sqlalchemy.orm.attributes import set_committed_value

from catalog.auth.repository import visible
from catalog.auth.viewer import PUBLIC, Viewer
from catalog.errors import ModelNotFound
from catalog.models.repository import names
from catalog.tables import Job, Model, ModelState, Revision, Source, Vector, change_seq


@dataclass(frozen=True)
class Metadata:
    """What the Hub tells of a repo; None is what it does not."""

    licence: str | None = None
    tags: tuple[str, ...] = ()
    downloads: int | None = None
    likes: int | None = None
    hub_updated_at: datetime | None = None
    hub_created_at: datetime | None = None
    datasets: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    hub_id: str | None = None  # the Hub's own for the repo, which outlives a rename

    def columns(self) -> dict[str, Any]:
        """As they stand in the table."""
        lists = {name: list(getattr(self, name)) for name in ("tags", "datasets", "languages")}
        return asdict(self) | lists


def ensure(
    session: Session, repo_id: str, source: Source, folder: str | None = None, *, private: bool = False
) -> Model:
    """The public (or the `private`) model that has that name now, made if there is none. The stored folder is left as
    it is.
    """
    values = {"repo_id": repo_id, "owner": repo_id.split("/", maxsplit=1)[0], "source": source, "folder": folder}
    statement = insert(Model).values(**values, private=private)
    unless_known = statement.on_conflict_do_nothing(index_elements=["repo_id", "private"])
    made = session.scalars(unless_known.returning(Model)).one_or_none()
    if made is None:
        return session.scalars(_of_name(repo_id).where(Model.private == private)).one()
    set_committed_value(made, "revision", None)  # it has none yet, which nobody needs to ask
    return made


def known_as(session: Session, repo_id: str) -> Model | None:
    """The public model that had that name before, or has it now, with its current revision."""
    named = _of_name(func.coalesce(names.now(repo_id), repo_id)).where(visible(PUBLIC))
    return session.scalars(named).one_or_none()


def get(session: Session, repo_id: str, viewer: Viewer = PUBLIC) -> Model:
    """The model with its current revision, also by a name that it had before; raises `ModelNotFound`."""
    model = find(session, repo_id, viewer) or find(session, names.current(session, [repo_id]).get(repo_id), viewer)
    if model is None:
        raise ModelNotFound(f"{repo_id} is not in this catalog. Submit it with POST /v1/models or `deltadex add`.")
    return model


def find(session: Session, repo_id: str | None, viewer: Viewer = PUBLIC) -> Model | None:
    """The model that has that name now, with its current revision."""
    return session.scalars(_of_name(repo_id).where(visible(viewer))).one_or_none() if repo_id is not None else None


def _of_name(repo_id: str | ColumnElement[str]) -> Select[Model]:
    return select(Model).where(Model.repo_id == repo_id).options(joinedload(Model.revision))


def by_hub_id(session: Session, hub_id: str) -> Model | None:
    """The public model of the repo that has that id on the Hub."""
    statement = select(Model).where(Model.hub_id == hub_id, ~Model.private).order_by(Model.id).limit(1)
    return session.scalars(statement.options(joinedload(Model.revision))).one_or_none()


def page(
    session: Session,
    *,
    base: str | None = None,
    owner: str | None = None,
    state: ModelState | None = None,
    after: int = 0,
    limit: int = 50,
    viewer: Viewer = PUBLIC,
) -> list[Model]:
    """Up to `limit` models with an id above `after`, oldest first, with their current revisions."""
    statement = (
        select(Model)
        .outerjoin(Model.revision)
        .options(contains_eager(Model.revision))
        .where(Model.id > after, visible(viewer), *filtered(base, owner, state))
        .order_by(Model.id)
        .limit(limit)
    )
    return list(session.scalars(statement))


def containing(
    session: Session,
    query: str,
    *,
    base: str | None = None,
    owner: str | None = None,
    state: ModelState | None = None,
    after: tuple[float, int] | None = None,
    limit: int = 50,
    viewer: Viewer = PUBLIC,
) -> list[tuple[Model, float]]:
    """Up to `limit` models whose name, tags or card match a `tsquery` (`catalog.tables.model_words.query`), with their
    ranks, the best first, beginning after that rank and id. What was removed is not among them.
    """
    asked = func.to_tsquery(cast("simple", REGCONFIG), query)
    rank = cast(func.ts_rank(Model.words, asked), Double)
    statement = (
        select(Model, rank)
        .outerjoin(Model.revision)
        .options(contains_eager(Model.revision))
        .where(Model.words.bool_op("@@")(asked), visible(viewer), *filtered(base, owner, state))
        .order_by(rank.desc(), Model.id)
        .limit(limit)
    )
    if state is None:
        statement = statement.where(Model.state != ModelState.REMOVED)
    if after is not None:
        statement = statement.where((rank < after[0]) | ((rank == after[0]) & (Model.id > after[1])))
    return [(model, score) for model, score in session.execute(statement)]


def filtered(base: str | None, owner: str | None, state: ModelState | None) -> list[ColumnElement[bool]]:
    """Conditions on a model joined with its current revision."""
    wanted = ((Revision.base_repo, base), (Model.owner, owner), (Model.state, state))
    return [column == value for column, value in wanted if value is not None]


def by_ids(session: Session, ids: Iterable[int], viewer: Viewer = PUBLIC) -> dict[int, Model]:
    """Models by id as far as the viewer may see them, with their current revisions, in one statement."""
    # an array: there may be more of them than a statement may have parameters
    wanted = any_(literal(list(ids), ARRAY(BigInteger)))
    statement = select(Model).where(Model.id == wanted, visible(viewer)).options(joinedload(Model.revision))
    return {model.id: model for model in session.scalars(statement)}


def set_state(session: Session, model_id: int, state: ModelState) -> None:
    session.execute(update(Model).where(Model.id == model_id).values(state=state))


def mark_failed(session: Session, model_ids: Sequence[int]) -> None:
    """A model that was never stored is failed; one that is indexed stays so when an update of it fails."""
    pending = Model.id.in_(model_ids) & (Model.state == ModelState.PENDING)
    session.execute(update(Model).where(pending).values(state=ModelState.FAILED))


def make_current(
    session: Session,
    model_id: int,
    sha: str,
    *,
    kind: str,
    base_repo: str,
    base_sha: str,
    evidence: dict,
    facts: dict | None = None,
) -> Revision:
    """The revision `sha`, made if needed, as the model's current one."""
    session.execute(update(Revision).where(Revision.model_id == model_id, Revision.current).values(current=False))
    values = {"kind": kind, "base_repo": base_repo, "base_sha": base_sha, "base_evidence": evidence, "current": True}
    values["facts"] = facts
    announce(session, model_id)
    statement = insert(Revision).values(model_id=model_id, sha=sha, **values)
    statement = statement.on_conflict_do_update(index_elements=["model_id", "sha"], set_=values)
    return session.scalars(statement.returning(Revision), execution_options={"populate_existing": True}).one()


def current_revision(session: Session, model_id: int) -> Revision | None:
    return session.scalars(select(Revision).where(Revision.model_id == model_id, Revision.current)).one_or_none()


def restore(session: Session, revision: Revision) -> None:
    """Make a revision that was embedded before the current one again."""
    session.execute(
        update(Revision).where(Revision.model_id == revision.model_id, Revision.current).values(current=False)
    )
    session.execute(update(Revision).where(Revision.id == revision.id).values(current=True))
    announce(session, revision.model_id)


def describe(session: Session, model_id: int, metadata: Metadata) -> None:
    """Store what the Hub tells now. The caller holds `vectors.lock_feed`."""
    session.execute(update(Model).where(Model.id == model_id).values(**metadata.columns(), seq=change_seq.next_value()))


def forget(session: Session, model_id: int) -> None:
    """Keep of a model no more than its name. The caller holds `vectors.lock_feed`."""
    told = Metadata().columns()
    del told["hub_id"]
    nothing = {**told, "card": None, "cluster": None, "hub_sha": None, "state": ModelState.REMOVED}
    session.execute(update(Model).where(Model.id == model_id).values(**nothing, seq=change_seq.next_value()))


def set_hub_sha(session: Session, model_id: int, sha: str | None, hub_id: str | None = None) -> None:
    """The newest commit that the Hub told of."""
    values = {"hub_sha": sha} | ({"hub_id": hub_id} if hub_id else {})
    session.execute(update(Model).where(Model.id == model_id).values(**values))


def told(session: Session, model_id: int) -> str | None:
    """The newest commit that a crawl or the webhook told of."""
    return session.execute(select(Model.hub_sha).where(Model.id == model_id)).scalar_one_or_none()


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


def bases(session: Session, model_ids: Sequence[int]) -> list[str]:
    """The base of each of those models, in their order; empty for one that is gone."""
    wanted = Revision.model_id == any_(literal(list(model_ids), ARRAY(BigInteger)))
    statement = select(Revision.model_id, Revision.base_repo).where(Revision.current, wanted)
    found = {model_id: base for model_id, base in session.execute(statement)}
    return [found.get(model_id, "") for model_id in model_ids]


def drop_if_empty(session: Session, model_id: int) -> None:
    """Take away a private model that no job and no revision belongs to."""
    asked_for = select(Job.id).where(Job.model_id == Model.id).exists()
    stored = select(Revision.id).where(Revision.model_id == Model.id).exists()
    session.execute(delete(Model).where(Model.id == model_id, Model.private, ~asked_for, ~stored))


def trained_on(session: Session, space_id: int, datasets: Sequence[str], limit: int, viewer: Viewer) -> list[str]:
    """The repo ids of models of a space whose cards name these datasets and no others."""
    wanted = literal(list(datasets), ARRAY(Text))
    statement = (
        select(Model.repo_id)
        .join(Vector, Vector.model_id == Model.id)
        .join(Revision, Revision.id == Vector.revision_id)
        .where(Vector.space_id == space_id, Revision.current, ~Vector.deleted, ~Vector.no_shift)
        .where(Model.datasets.contains(wanted), Model.datasets.contained_by(wanted), visible(viewer))
        .order_by(Model.id)
        .limit(limit)
    )
    return list(session.scalars(statement))


def counts(session: Session) -> dict[ModelState, int]:
    """How many public models are in each state."""
    every = select(Model.state, func.count()).group_by(Model.state)
    hidden = {state: count for state, count in session.execute(every.where(Model.private))}  # by an index
    counted = {ModelState(state): count - hidden.get(state, 0) for state, count in session.execute(every)}
    return dict.fromkeys(ModelState, 0) | counted
