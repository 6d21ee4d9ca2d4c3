"""What the Hub's webhook tells, and what becomes of it.

The Hub sends no number with a delivery, and lets people send old ones again. So nothing is remembered of deliveries:
each is held against what is stored, and one that was acted on finds nothing left to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy.orm import Session

from catalog.auth import repository as access
from catalog.database import Database
from catalog.errors import InvalidRepoId
from catalog.hub_sync.removals import follow, remove
from catalog.jobs import private_models
from catalog.jobs.submissions import enqueue
from catalog.models.repo_ref import LOCAL_OWNER, RepoRef
from catalog.models.repository import models, names
from catalog.tables import Job, Model, ModelState, Priority, Source
from catalog.vectors.repository import feed

MAIN = "refs/heads/main"


@dataclass(frozen=True)
class HubEvent:
    """One delivery about a model's repo. `head_sha` is the newest commit of its main branch, `refs` what a push moved
    (None: it is no push), `moved_to` its new name.
    """

    action: str
    scope: str
    repo_id: str
    private: bool
    hub_id: str | None = None
    head_sha: str | None = None
    moved_to: str | None = None
    refs: tuple[str, ...] | None = None

    @property
    def about_the_repo(self) -> bool:
        """Not a discussion. Scopes may become narrower: `repo.config.dois` is one of `repo.config`."""
        return self.scope == "repo" or self.scope.startswith("repo.")

    @property
    def deleted(self) -> bool:
        return (self.action, self.scope) == ("delete", "repo")

    @property
    def created(self) -> bool:
        return (self.action, self.scope) == ("create", "repo")


class Outcome(StrEnum):
    QUEUED = "queued"
    REMOVED = "removed"
    RENAMED = "renamed"
    NOTHING = "nothing"


def receive(database: Database, event: HubEvent) -> tuple[Outcome, Job | None]:
    """Act on a delivery in one transaction, once however often it comes."""
    if not event.about_the_repo or not _is_model(event.repo_id):
        return Outcome.NOTHING, None
    with database.transaction() as session:
        feed.lock_feed(session)  # before any row of a model: whoever stores a vector has it first, too
        if event.deleted:
            _delete_private(session, event)
        model = _model(session, event)
        if event.deleted or event.private:
            gone = model is not None and remove(session, model)
            return (Outcome.REMOVED if gone else Outcome.NOTHING), None
        renamed = model is not None and _rename(session, event, model)
        job = _push(session, event, models.find(session, _name(event)) if renamed else model)
    if job is not None:
        return Outcome.QUEUED, job
    return (Outcome.RENAMED if renamed else Outcome.NOTHING), None


def _delete_private(session: Session, event: HubEvent) -> None:
    """What is gone from the Hub leaves the index. No answer tells of it: whoever delivers may see no private ones."""
    twin = access.private_model(session, event.repo_id)
    if twin is not None and (twin.hub_id is None or event.hub_id in (None, twin.hub_id)):
        private_models.withdraw(session, twin)


def _is_model(repo_id: str) -> bool:
    """The Hub's oldest models have no owner; they are nobody's fine-tunes."""
    try:
        return RepoRef(repo_id).owner != LOCAL_OWNER
    except InvalidRepoId:
        return False


def _name(event: HubEvent) -> str:
    return event.moved_to if event.moved_to and _is_model(event.moved_to) else event.repo_id


def _model(session: Session, event: HubEvent) -> Model | None:
    """By the Hub's own id, or else by the name; by a former one unless the Hub has given that to another repo."""
    by_id = models.by_hub_id(session, event.hub_id) if event.hub_id else None
    if (model := by_id or models.find(session, event.repo_id)) is not None:
        return model
    model = models.find(session, names.current(session, [event.repo_id]).get(event.repo_id))
    return model if model and (model.hub_id is None or event.hub_id in (None, model.hub_id)) else None


def _rename(session: Session, event: HubEvent, model: Model) -> bool:
    """An old delivery, sent again, does not give a model back a name that it had before."""
    name = _name(event)
    had = model.repo_id != event.repo_id and names.current(session, [name]).get(name) == model.repo_id
    if event.action != "move" or model.repo_id == name or had:
        return False
    follow(session, model, name)
    return True


def _push(session: Session, event: HubEvent, model: Model | None) -> Job | None:
    """A job where main has a commit that was neither embedded nor told of."""
    if event.head_sha is None or event.created or (event.refs is not None and MAIN not in event.refs):
        return None  # a push follows the creation
    seen = (model.hub_sha, model.revision.sha if model.revision else None) if model else ()
    if model is not None and model.state != ModelState.REMOVED and event.head_sha in seen:
        return None
    if model is None:
        names.take(session, [_name(event)])
        model = models.ensure(session, _name(event), Source.HUB)
    models.set_hub_sha(session, model.id, event.head_sha, event.hub_id)
    job, made = enqueue(session, model, None, Priority.WEBHOOK)
    return job if made else None
