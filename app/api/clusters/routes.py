"""Routes: clusters, their members, the runs that found them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, status

from app.api import pagination
from app.api import schemas as shared_schemas
from app.api.auth.admin import FOR_ADMINS, admin
from app.api.auth.viewer import ViewerDep
from app.api.clusters import schemas
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import Id, ModelName, OwnerName
from app.api.services.services import ServicesDep
from catalog.clusters import service as cluster_service
from catalog.errors import (
    BodyTooLarge,
    ClusterNotFound,
    InvalidCursor,
    InvalidRepoId,
    ModelNotFound,
    NotClustered,
    RunNotFound,
    SpaceNotFound,
    WeakKey,
)
from catalog.models.repo_ref import RepoRef

router = APIRouter(prefix="/v1", tags=["clusters"])


@router.get("/clusters", responses=problems(NotClustered, SpaceNotFound))
def overview(query: Annotated[shared_schemas.SpaceQuery, Query()], services: ServicesDep) -> schemas.Clusters:
    """The clusters of a space as the last run found them, the largest first."""
    return schemas.Clusters.of(cluster_service.overview(services.database, query.space))


@router.get("/clusters/runs", responses=problems(InvalidCursor, SpaceNotFound))
def runs(query: Annotated[schemas.RunsQuery, Query()], services: ServicesDep) -> schemas.Runs:
    """All runs, the newest first: those that wait, work, failed, and what each found."""
    found = cluster_service.runs(
        services.database, query.space, before=pagination.decode(query.cursor), limit=query.limit
    )
    more = pagination.next_cursor(found, query.limit, lambda row: row[0].id)
    return schemas.Runs(runs=[schemas.Run.of(run, key) for run, key in found], next_cursor=more)


@router.get("/clusters/runs/{run_id}", dependencies=[no_query], responses=problems(RunNotFound))
def one_run(run_id: Id, services: ServicesDep) -> schemas.Run:
    """A run: how far it is, or what it found."""
    return schemas.Run.of(*cluster_service.run(services.database, run_id))


@router.get("/clusters/runs/{run_id}/compare/{other_id}", dependencies=[no_query], responses=problems(RunNotFound))
def compare(run_id: Id, other_id: Id, services: ServicesDep) -> schemas.RunComparison:
    """How alike two runs are, over the models that both clustered."""
    found = cluster_service.compare(services.database, run_id, other_id)
    return schemas.RunComparison(
        run=run_id, other=other_id, models=found.models, adjusted_rand=found.adjusted_rand, kept=found.kept
    )


@router.get("/clusters/{cluster_id}", responses=problems(ClusterNotFound))
def one(cluster_id: Id, query: Annotated[schemas.RunQuery, Query()], services: ServicesDep) -> schemas.ClusterDetail:
    """A cluster: its name, what sets it apart, its medoid and closest members."""
    return schemas.ClusterDetail.with_members(cluster_service.detail(services.database, cluster_id, query.run))


@router.get("/clusters/{cluster_id}/members", responses=problems(ClusterNotFound, InvalidCursor))
def members(cluster_id: Id, query: Annotated[schemas.MembersQuery, Query()], services: ServicesDep) -> schemas.Members:
    """The members of a cluster, the closest to its centroid first."""
    after = pagination.decode_scored(query.cursor)
    run, found = cluster_service.members(services.database, cluster_id, query.run, after=after, limit=query.limit)
    more = pagination.next_cursor(found, query.limit, lambda row: (row[0].similarity or 0.0, row[0].model_id))
    return schemas.Members(
        run=run.id, members=[schemas.Member.of(member, repo_id) for member, repo_id in found], next_cursor=more
    )


@router.get(
    "/models/{owner}/{name}/cluster",
    tags=["models"],
    responses=problems(ModelNotFound, InvalidRepoId, NotClustered, SpaceNotFound, WeakKey),
)
def of_model(
    owner: OwnerName,
    name: ModelName,
    query: Annotated[shared_schemas.SpaceQuery, Query()],
    services: ServicesDep,
    viewer: ViewerDep,
) -> schemas.ModelCluster:
    """The cluster that a model is in, or that it was put with when it came."""
    repo_id = RepoRef(f"{owner}/{name}").repo_id
    return schemas.ModelCluster.of(repo_id, cluster_service.of_model(services.database, repo_id, query.space, viewer))


@router.post(
    "/admin/clusters",
    tags=["admin"],
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[no_query, admin],
    responses=problems(SpaceNotFound, BodyTooLarge, *FOR_ADMINS),
)
def fit(request: schemas.FitRequest, services: ServicesDep) -> schemas.Run:
    """Ask for the clusters of a space to be found anew; while a run waits or works there, it is given again."""
    run, space = cluster_service.ask(services.database, request.parameters(), request.space)
    return schemas.Run.of(run, space.key)
