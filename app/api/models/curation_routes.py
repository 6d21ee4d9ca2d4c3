"""Routes of a team's own tags, notes and aliases on models."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from app.api import pagination
from app.api.auth.caller import ViewerDep
from app.api.limits import no_query
from app.api.models import curation_schemas as schemas
from app.api.problems import problems
from app.api.schemas import ModelName, OwnerName, PageQuery
from app.api.services.services import ServicesDep
from catalog.errors import (
    AliasNotFound,
    BodyTooLarge,
    InvalidCursor,
    InvalidName,
    InvalidRepoId,
    ModelNotFound,
    TooManyAliases,
    TooManyTags,
)
from catalog.models import curation as curation_service
from catalog.models.repo_ref import RepoRef

router = APIRouter(prefix="/v1", tags=["curation"])
_WRITE_FAILURES = (ModelNotFound, InvalidRepoId)

AliasName = Annotated[str, Path(max_length=200)]


@router.patch(
    "/models/{owner}/{name}/team-tags",
    dependencies=[no_query],
    responses=problems(*_WRITE_FAILURES, InvalidName, TooManyTags, BodyTooLarge),
)
def change_team_tags(
    owner: OwnerName, name: ModelName, change: schemas.TeamTagsChange, services: ServicesDep, viewer: ViewerDep
) -> schemas.Curation:
    """Add team tags to a model and remove others. They are apart from the tags that it has on the Hub."""
    repo_id = RepoRef(f"{owner}/{name}").repo_id
    curated = curation_service.change_tags(
        services.database, repo_id, add=change.add, remove=change.remove, viewer=viewer
    )
    return schemas.Curation.from_curated(curated)


@router.put("/models/{owner}/{name}/note", dependencies=[no_query], responses=problems(*_WRITE_FAILURES, BodyTooLarge))
def set_note(
    owner: OwnerName, name: ModelName, note: schemas.NoteText, services: ServicesDep, viewer: ViewerDep
) -> schemas.Curation:
    """Set the team's note on a model, in place of an earlier one."""
    repo_id = RepoRef(f"{owner}/{name}").repo_id
    curated = curation_service.set_note(services.database, repo_id, note.text, viewer)
    return schemas.Curation.from_curated(curated)


@router.delete("/models/{owner}/{name}/note", dependencies=[no_query], responses=problems(*_WRITE_FAILURES))
def delete_note(owner: OwnerName, name: ModelName, services: ServicesDep, viewer: ViewerDep) -> schemas.Curation:
    """Delete the team's note on a model, if it has one."""
    repo_id = RepoRef(f"{owner}/{name}").repo_id
    return schemas.Curation.from_curated(curation_service.delete_note(services.database, repo_id, viewer))


@router.get("/aliases", responses=problems(InvalidCursor))
def list_aliases(query: Annotated[PageQuery, Query()], services: ServicesDep, viewer: ViewerDep) -> schemas.Aliases:
    """List the aliases of models, oldest first."""
    rows = curation_service.list_aliases(
        services.database, after=pagination.decode(query.cursor), limit=query.limit, viewer=viewer
    )
    next_cursor = pagination.next_cursor(rows, query.limit, lambda row: row[0].id)
    return schemas.Aliases(aliases=[schemas.Alias.from_row(*row) for row in rows], next_cursor=next_cursor)


@router.put(
    "/aliases/{alias}",
    dependencies=[no_query],
    responses=problems(*_WRITE_FAILURES, InvalidName, TooManyAliases, BodyTooLarge),
)
def set_alias(alias: AliasName, target: schemas.AliasTarget, services: ServicesDep, viewer: ViewerDep) -> schemas.Alias:
    """Make an alias refer to a model, in place of the model that it referred to: there is no moment without it.

    `alias/NAME` is then a name of the model. An alias of a private model is known only to those who may see the model.
    """
    repo_id = RepoRef(target.repo_id).repo_id
    return schemas.Alias.from_row(*curation_service.set_alias(services.database, alias, repo_id, viewer))


@router.delete(
    "/aliases/{alias}",
    dependencies=[no_query],
    responses=problems(AliasNotFound, InvalidName),
)
def delete_alias(alias: AliasName, services: ServicesDep, viewer: ViewerDep) -> schemas.Alias:
    """Delete an alias, and return it. The model stays."""
    return schemas.Alias.from_row(*curation_service.delete_alias(services.database, alias, viewer))
