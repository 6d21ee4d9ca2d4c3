"""Deliveries of the Hub's webhook.

Deliveries have no id, and the Hub lets users send old ones again. So deliveries are not recorded: each one is compared
with the stored rows, and repeating it changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy.orm import Session

from catalog.auth.repository import access
from catalog.blocks import repository as blocks
from catalog.database import Database
from catalog.errors import InvalidRepoId
from catalog.hub_sync.removals import follow_rename, remove_model
from catalog.jobs import private_models
from catalog.jobs.repository import jobs
from catalog.jobs.submissions import enqueue
from catalog.models.repo_ref import RESERVED_OWNERS, RepoRef
from catalog.models.repository import models, names
from catalog.tables import Job, Model, ModelState, Priority, Source
from catalog.vectors.repository import feed

MAIN = "refs/heads/main"
CREATION_DELAY = 120.0  # seconds; a duplicated repo gets its large files some time after its creation


@dataclass(frozen=True)
class HubEvent:
    """One delivery about a model's repo. `head_sha` is the newest commit of its main branch, `refs` are the refs that a
    push updated (None: not a push), and `moved_to` is the repo's new name.
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
    def concerns_repo(self) -> bool:
        """False for discussions. Scopes are hierarchical: `repo.config.dois` is part of `repo.config`."""
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
    BLOCKED = "blocked"  # an admin removed the model, or a block applies to it
    NOTHING = "nothing"


def receive(database: Database, event: HubEvent) -> tuple[Outcome, Job | None]:
    """Apply a delivery in one transaction. A repeated delivery changes nothing."""
    if not event.concerns_repo or not _is_model(event.repo_id):
        return Outcome.NOTHING, None
    with database.transaction() as session:
        feed.lock_feed(session)  # before any row of `models`, in the same order as everything that stores vectors
        if event.deleted:
            _delete_private(session, event)
        model = _find_model(session, event)
        if event.deleted or event.private:
            removed = model is not None and remove_model(session, model)
            return (Outcome.REMOVED if removed else Outcome.NOTHING), None
        renamed = model is not None and _rename(session, event, model)
        if _is_blocked(session, event, model):
            return Outcome.BLOCKED, None
        job = _push(session, event, models.find(session, _new_name(event)) if renamed else model)
    if job is not None:
        return Outcome.QUEUED, job
    return (Outcome.RENAMED if renamed else Outcome.NOTHING), None


def _delete_private(session: Session, event: HubEvent) -> None:
    """Remove the private model of a deleted repo. The response does not show it, because its sender has no access."""
    model = access.find_private_model(session, event.repo_id)
    if model is not None and (model.hub_id is None or event.hub_id in (None, model.hub_id)):
        private_models.withdraw_private_model(session, model)


def _is_model(repo_id: str) -> bool:
    """Whether this can be the name of a fine-tune. The Hub's oldest models have no owner; they are base models."""
    try:
        return RepoRef(repo_id).owner not in RESERVED_OWNERS
    except InvalidRepoId:
        return False


def _new_name(event: HubEvent) -> str:
    """The name of the repo after the event."""
    return event.moved_to if event.moved_to and _is_model(event.moved_to) else event.repo_id


def _find_model(session: Session, event: HubEvent) -> Model | None:
    """The model by the Hub's id of the repo, or else by its name; by a former name unless another repo has it now."""
    by_id = models.find_by_hub_id(session, event.hub_id) if event.hub_id else None
    if (model := by_id or models.find_public_row(session, event.repo_id)) is not None:
        return model
    model = models.find_by_other_name(session, event.repo_id)
    return model if model and (model.hub_id is None or event.hub_id in (None, model.hub_id)) else None


def _rename(session: Session, event: HubEvent, model: Model) -> bool:
    """Apply a rename. An old delivery that is sent again does not restore a former name."""
    name = _new_name(event)
    is_former_name = model.repo_id != event.repo_id and names.current_names(session, [name]).get(name) == model.repo_id
    if event.action != "move" or model.repo_id == name or is_former_name:
        return False
    follow_rename(session, model, name)
    return True


def _is_blocked(session: Session, event: HubEvent, model: Model | None) -> bool:
    """Whether an admin removed the model, or a block applies to its name or to the license that is known of it."""
    if model is not None and model.removed_at is not None:
        return True
    name, license = _new_name(event), model.license if model else None
    return blocks.load(session, [(name, license)]).find(name, license) is not None


def _push(session: Session, event: HubEvent, model: Model | None) -> Job | None:
    """Enqueue a job if the main branch has a commit that was neither measured nor reported before. After a creation, as
    of a duplicate, it is delayed; a push that follows makes it due.
    """
    if event.head_sha is None or (event.refs is not None and MAIN not in event.refs):
        return None
    known_shas = (model.hub_sha, model.revision.sha if model.revision else None) if model else ()
    if model is not None and model.state != ModelState.REMOVED and event.head_sha in known_shas:
        return None
    if model is None:
        names.release_former_names(session, [_new_name(event)])
        model = models.get_or_create(session, _new_name(event), Source.HUB)
    models.set_hub_sha(session, model.id, event.head_sha, event.hub_id)
    job, created = enqueue(session, model, None, Priority.WEBHOOK, notify=not event.created)
    if created and event.created:
        jobs.delay(session, job.id, CREATION_DELAY)
    return job if created else None
