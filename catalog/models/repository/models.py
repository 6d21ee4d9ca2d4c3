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

from catalog.auth.repository.access import visible_models
from catalog.auth.viewer import PUBLIC, Viewer
from catalog.errors import ModelNotFound
from catalog.models.repository import names
from catalog.tables import Job, Model, ModelState, Revision, Source, TeamTag, Vector, change_seq

MAX_RANKED = 1_000  # matches of a text search that are ranked


@dataclass(frozen=True)
class Metadata:
    """What the Hub says about a repo. None: the Hub does not provide the value."""

    license: str | None = None
    tags: tuple[str, ...] = ()
    downloads: int | None = None
    likes: int | None = None
    hub_updated_at: datetime | None = None
    hub_created_at: datetime | None = None
    datasets: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    hub_id: str | None = None  # the Hub's own id of the repo, which survives a rename

    def columns(self) -> dict[str, Any]:
        """The values as the columns of `models` store them."""
        lists = {name: list(getattr(self, name)) for name in ("tags", "datasets", "languages")}
        return asdict(self) | lists


def get_or_create(
    session: Session, repo_id: str, source: Source, folder: str | None = None, *, private: bool = False
) -> Model:
    """The public (or `private`) model with this current name, created if it does not exist. The folder of an existing
    model is not changed.
    """
    values = {"repo_id": repo_id, "owner": repo_id.split("/", maxsplit=1)[0], "source": source, "folder": folder}
    statement = insert(Model).values(**values, private=private)
    statement = statement.on_conflict_do_nothing(index_elements=["repo_id", "private"])
    created = session.scalars(statement.returning(Model)).one_or_none()
    if created is None:
        return session.scalars(_select_by_name(repo_id).where(Model.private == private)).one()
    set_committed_value(created, "revision", None)  # a new model has no revision: saves the query
    return created


def find_by_any_name(session: Session, repo_id: str) -> Model | None:
    """The public model with this former or current name, with its current revision."""
    statement = _select_by_name(func.coalesce(names.current_name_query(repo_id), repo_id))
    return session.scalars(statement.where(visible_models(PUBLIC))).one_or_none()


def get(session: Session, repo_id: str, viewer: Viewer = PUBLIC) -> Model:
    """The model with this current name, former name or alias, with its current revision. Raises `ModelNotFound`."""
    model = find(session, repo_id, viewer) or find_by_other_name(session, repo_id, viewer)
    if model is None:
        raise ModelNotFound(f"{repo_id} is not in this catalog. Submit it with POST /v1/models or `deltadex add`.")
    return model


def find(session: Session, repo_id: str, viewer: Viewer = PUBLIC) -> Model | None:
    """The model with this current name, with its current revision."""
    return session.scalars(_select_by_name(repo_id).where(visible_models(viewer))).one_or_none()


def find_public_row(session: Session, repo_id: str) -> Model | None:
    """The public row with this current name, also if an admin removed the model, with its current revision."""
    return session.scalars(_select_by_name(repo_id).where(~Model.private)).one_or_none()


def find_by_other_name(session: Session, other: str, viewer: Viewer = PUBLIC) -> Model | None:
    """The model that had this name before it was renamed, or has it as an alias, with its current revision."""
    name = names.current_names(session, [other], viewer).get(other)
    return find(session, name, viewer) if name is not None else None


def _select_by_name(repo_id: str | ColumnElement[str]) -> Select[Model]:
    return select(Model).where(Model.repo_id == repo_id).options(joinedload(Model.revision))


def find_by_hub_id(session: Session, hub_id: str) -> Model | None:
    """The public model of the repo with this id on the Hub."""
    statement = select(Model).where(Model.hub_id == hub_id, ~Model.private).order_by(Model.id).limit(1)
    return session.scalars(statement.options(joinedload(Model.revision))).one_or_none()


def list_page(
    session: Session,
    *,
    base: str | None = None,
    owner: str | None = None,
    state: ModelState | None = None,
    team_tags: Sequence[str] = (),
    after: int = 0,
    limit: int = 50,
    viewer: Viewer = PUBLIC,
) -> list[Model]:
    """Up to `limit` models with an id above `after`, oldest first, with their current revisions."""
    statement = (
        select(Model)
        .outerjoin(Model.revision)
        .options(contains_eager(Model.revision))
        .where(Model.id > after, visible_models(viewer), *filter_conditions(base, owner, state, team_tags))
        .order_by(Model.id)
        .limit(limit)
    )
    return list(session.scalars(statement))


def search_text(
    session: Session,
    query: str,
    *,
    base: str | None = None,
    owner: str | None = None,
    state: ModelState | None = None,
    team_tags: Sequence[str] = (),
    after: tuple[float, int] | None = None,
    limit: int = 50,
    viewer: Viewer = PUBLIC,
) -> list[tuple[Model, float]]:
    """Up to `limit` models whose name, tags or card match a `tsquery` (`catalog.tables.model_words.query`), with their
    ranks, best first, after the given (rank, id). Removed models are left out unless `state` is their state.

    Only the newest `MAX_RANKED` matches are ranked, because ranking reads the words of each.
    """
    tsquery = func.to_tsquery(cast("simple", REGCONFIG), query)
    rank = cast(func.ts_rank(Model.words, tsquery), Double)
    matches = (
        select(Model.id)
        .outerjoin(Model.revision)
        .where(
            Model.words.bool_op("@@")(tsquery),
            visible_models(viewer),
            *filter_conditions(base, owner, state, team_tags),
        )
        .order_by(Model.id.desc())
        .limit(MAX_RANKED)
    )
    if state is None:
        matches = matches.where(Model.state != ModelState.REMOVED)
    newest = matches.subquery()
    statement = (
        select(Model, rank)
        .join(newest, newest.c.id == Model.id)
        .outerjoin(Model.revision)
        .options(contains_eager(Model.revision))
        .order_by(rank.desc(), Model.id)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where((rank < after[0]) | ((rank == after[0]) & (Model.id > after[1])))
    return [(model, score) for model, score in session.execute(statement)]


def filter_conditions(
    base: str | None, owner: str | None, state: ModelState | None, team_tags: Sequence[str] = ()
) -> list[ColumnElement[bool]]:
    """Conditions on a statement that joins models with their current revisions."""
    filters = ((Revision.base_repo, base), (Model.owner, owner), (Model.state, state))
    return [*(column == value for column, value in filters if value is not None), *TeamTag.on_model(team_tags)]


def get_by_ids(session: Session, ids: Iterable[int], viewer: Viewer = PUBLIC) -> dict[int, Model]:
    """The models with these ids that the viewer can see, by id, with their current revisions. One statement."""
    any_id = any_(literal(list(ids), ARRAY(BigInteger)))  # an array, because the number of parameters is limited
    statement = select(Model).where(Model.id == any_id, visible_models(viewer)).options(joinedload(Model.revision))
    return {model.id: model for model in session.scalars(statement)}


def find_removed(session: Session, ids: Sequence[int]) -> list[int]:
    """Those of the models that were removed from the catalog."""
    any_id = any_(literal(list(ids), ARRAY(BigInteger)))
    return list(session.scalars(select(Model.id).where(Model.id == any_id, Model.state == ModelState.REMOVED)))


def set_state(session: Session, model_id: int, state: ModelState) -> None:
    """Set the state of a model whose vectors were stored. It is not removed any more, if it was."""
    session.execute(update(Model).where(Model.id == model_id).values(state=state, removed_at=None))


def readmit(session: Session, model: Model, folder: str | None = None) -> None:
    """Make a model that an admin removed an ordinary one again, because a person asked for it."""
    values = {"state": ModelState.PENDING, "removed_at": None, "folder": folder}
    session.execute(update(Model).where(Model.id == model.id).values(**values))
    session.refresh(model)


def mark_failed(session: Session, model_ids: Sequence[int]) -> None:
    """Mark models that were never stored as failed. An indexed model stays indexed when an update of it fails."""
    pending = Model.id.in_(model_ids) & (Model.state == ModelState.PENDING)
    session.execute(update(Model).where(pending).values(state=ModelState.FAILED))


def store_revision(
    session: Session,
    model_id: int,
    sha: str,
    *,
    current: bool,
    kind: str,
    base_repo: str,
    base_sha: str,
    evidence: dict,
    facts: dict | None = None,
) -> Revision:
    """Create or update the revision `sha` of a model: as the current one, or as part of its history.

    For a current one, the caller holds `feed.lock_feed`, and stores the vectors, the state and the card of the revision
    in the same transaction.
    """
    if current:
        session.execute(update(Revision).where(Revision.model_id == model_id, Revision.current).values(current=False))
        bump_seq(session, model_id)
    values: dict[str, Any] = {"kind": kind, "base_repo": base_repo, "base_sha": base_sha, "current": current}
    values |= {"base_evidence": evidence, "facts": facts}
    statement = insert(Revision).values(model_id=model_id, sha=sha, **values)
    statement = statement.on_conflict_do_update(index_elements=["model_id", "sha"], set_=values)
    return session.scalars(statement.returning(Revision), execution_options={"populate_existing": True}).one()


def find_current_revision(session: Session, model_id: int) -> Revision | None:
    return session.scalars(select(Revision).where(Revision.model_id == model_id, Revision.current)).one_or_none()


def update_metadata(session: Session, model_id: int, metadata: Metadata) -> None:
    """Store the metadata that the Hub provides now. The caller holds `feed.lock_feed`."""
    session.execute(update(Model).where(Model.id == model_id).values(**metadata.columns(), seq=change_seq.next_value()))


def clear_metadata(session: Session, model_ids: Sequence[int], **values: Any) -> None:
    """Clear everything stored about models except their names and ids, and set further `values`. The caller holds
    `feed.lock_feed`.
    """
    values |= Metadata().columns() | {"card": None, "hub_sha": None, "state": ModelState.REMOVED}
    del values["hub_id"]
    statement = update(Model).where(Model.id.in_(model_ids)).values(**values, seq=change_seq.next_value())
    session.execute(statement)


def set_hub_sha(session: Session, model_id: int, sha: str | None, hub_id: str | None = None) -> None:
    """Store the newest commit on the Hub, and the repo's id there if it is known."""
    values = {"hub_sha": sha} | ({"hub_id": hub_id} if hub_id else {})
    session.execute(update(Model).where(Model.id == model_id).values(**values))


def latest_known_sha(session: Session, model_id: int) -> str | None:
    """The newest commit that a crawl or the webhook reported."""
    return session.execute(select(Model.hub_sha).where(Model.id == model_id)).scalar_one_or_none()


def set_card(session: Session, model_id: int, words: str | None) -> None:
    """Store the words of a model's card, for text search and the names of clusters."""
    session.execute(update(Model).where(Model.id == model_id).values(card=words))


def bump_seq(session: Session, model_id: int) -> None:
    """Make every process reload the model's attributes. The caller holds `feed.lock_feed`."""
    session.execute(update(Model).where(Model.id == model_id).values(seq=change_seq.next_value()))


def list_ids(session: Session, repo_ids: Sequence[str], viewer: Viewer = PUBLIC) -> list[int]:
    """The ids of the models with these current names, former names or aliases. Names that no model has are skipped."""
    current = names.current_names(session, repo_ids, viewer)
    return list(session.scalars(select(Model.id).where(Model.repo_id.in_([*repo_ids, *current.values()]))))


def list_bases(session: Session, model_ids: Sequence[int]) -> list[str]:
    """The base of each model, in the order of `model_ids`; an empty string for a model without a revision."""
    of_models = Revision.model_id == any_(literal(list(model_ids), ARRAY(BigInteger)))
    statement = select(Revision.model_id, Revision.base_repo).where(Revision.current, of_models)
    base_by_id = {model_id: base for model_id, base in session.execute(statement)}
    return [base_by_id.get(model_id, "") for model_id in model_ids]


def delete_if_empty(session: Session, model_id: int) -> None:
    """Delete a private model that has neither jobs nor revisions."""
    has_jobs = select(Job.id).where(Job.model_id == Model.id).exists()
    has_revisions = select(Revision.id).where(Revision.model_id == Model.id).exists()
    session.execute(delete(Model).where(Model.id == model_id, Model.private, ~has_jobs, ~has_revisions))


def list_by_datasets(session: Session, space_id: int, datasets: Sequence[str], limit: int, viewer: Viewer) -> list[str]:
    """The repo ids of up to `limit` models in a space whose cards name exactly these datasets."""
    names_array = literal(list(datasets), ARRAY(Text))
    statement = (
        select(Model.repo_id)
        .join(Vector, Vector.model_id == Model.id)
        .join(Revision, Revision.id == Vector.revision_id)
        .where(Vector.space_id == space_id, Revision.current, ~Vector.deleted, ~Vector.no_shift)
        .where(Model.datasets.contains(names_array), Model.datasets.contained_by(names_array), visible_models(viewer))
        .order_by(Model.id)
        .limit(limit)
    )
    return list(session.scalars(statement))


def count_by_state(session: Session) -> dict[ModelState, int]:
    """The number of public models in each state."""
    statement = select(Model.state, func.count()).group_by(Model.state)
    private = {state: count for state, count in session.execute(statement.where(Model.private))}  # uses an index
    public = {ModelState(state): count - private.get(state, 0) for state, count in session.execute(statement)}
    return dict.fromkeys(ModelState, 0) | public
