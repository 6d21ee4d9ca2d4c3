"""Routes of clusters, their members and the runs that compute them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, status

from app.api import pagination
from app.api import schemas as shared_schemas
from app.api.auth.caller import ViewerDep
from app.api.clusters import schemas
from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import Id, ModelName, OwnerName
from app.api.services.services import ServicesDep
from catalog.auth.viewer import ADMIN
from catalog.clusters import service as cluster_service
from catalog.errors import (
    BodyTooLarge,
    ClusterNotFound,
    ClustersNotReady,
    InvalidCursor,
    InvalidRepoId,
    ModelNotFound,
    RunNotFound,
    SpaceNotFound,
)
from catalog.models.repo_ref import RepoRef

router = APIRouter(prefix="/v1", tags=["clusters"])


@router.get("/clusters", responses=problems(ClustersNotReady, InvalidCursor, SpaceNotFound))
def list_clusters(query: Annotated[schemas.ClustersQuery, Query()], services: ServicesDep) -> schemas.Clusters:
    """List the clusters of the current run of a space, largest first."""
    after = pagination.decode_scored(query.cursor)
    page = cluster_service.list_clusters(services.database, query.space, after=after, limit=query.limit)
    next_cursor = pagination.next_cursor(page.clusters, query.limit, lambda row: (row[0].size, row[0].cluster_id))
    return schemas.Clusters.from_run(page, next_cursor)


@router.get("/clusters/runs", responses=problems(InvalidCursor, SpaceNotFound))
def list_cluster_runs(
    query: Annotated[schemas.ClusterRunsQuery, Query()], services: ServicesDep, viewer: ViewerDep
) -> schemas.ClusterRuns:
    """List all cluster runs, newest first: queued, running, done and failed ones."""
    runs = cluster_service.list_runs(
        services.database, query.space, before=pagination.decode(query.cursor), limit=query.limit
    )
    next_cursor = pagination.next_cursor(runs, query.limit, lambda row: row[0].id)
    return schemas.ClusterRuns(
        runs=[schemas.ClusterRun.from_row(run, space_key, viewer) for run, space_key in runs], next_cursor=next_cursor
    )


@router.get("/clusters/runs/{run_id}", dependencies=[no_query], responses=problems(RunNotFound))
def get_cluster_run(run_id: Id, services: ServicesDep, viewer: ViewerDep) -> schemas.ClusterRun:
    """Get a cluster run: its stage while it runs, its metrics once it is done."""
    return schemas.ClusterRun.from_row(*cluster_service.get_run(services.database, run_id), viewer)


@router.get("/clusters/runs/{run_id}/compare/{other_id}", dependencies=[no_query], responses=problems(RunNotFound))
def compare_cluster_runs(run_id: Id, other_id: Id, services: ServicesDep) -> schemas.ClusterRunComparison:
    """Compare two runs over the models that both clustered."""
    comparison = cluster_service.compare_runs(services.database, run_id, other_id)
    return schemas.ClusterRunComparison(
        run=run_id,
        other=other_id,
        models=comparison.models,
        adjusted_rand=comparison.adjusted_rand,
        shared_clusters=comparison.shared_clusters,
    )


@router.get("/clusters/{cluster_id}", responses=problems(ClusterNotFound))
def get_cluster(
    cluster_id: Id, query: Annotated[schemas.ClusterRunQuery, Query()], services: ServicesDep
) -> schemas.ClusterDetail:
    """Get a cluster: its name, its explanation, its medoid and its closest members."""
    return schemas.ClusterDetail.from_detail(cluster_service.get_cluster(services.database, cluster_id, query.run))


@router.get("/clusters/{cluster_id}/members", responses=problems(ClusterNotFound, InvalidCursor))
def list_cluster_members(
    cluster_id: Id, query: Annotated[schemas.ClusterMembersQuery, Query()], services: ServicesDep
) -> schemas.ClusterMembers:
    """List the members of a cluster, the closest to its centroid first."""
    after = pagination.decode_scored(query.cursor)
    run, rows = cluster_service.list_members(
        services.database, cluster_id, query.run, team_tags=query.team_tag, after=after, limit=query.limit
    )
    next_cursor = pagination.next_cursor(rows, query.limit, lambda row: (row[0].similarity or 0.0, row[0].model_id))
    return schemas.ClusterMembers(
        run=run.id,
        members=[schemas.ClusterMember.from_row(member, repo_id) for member, repo_id in rows],
        next_cursor=next_cursor,
    )


@router.get(
    "/models/{owner}/{name}/cluster",
    tags=["models"],
    responses=problems(ModelNotFound, InvalidRepoId, ClustersNotReady, SpaceNotFound),
)
def get_model_cluster(
    owner: OwnerName,
    name: ModelName,
    query: Annotated[shared_schemas.SpaceQuery, Query()],
    services: ServicesDep,
    viewer: ViewerDep,
) -> schemas.ModelCluster:
    """Get the cluster of a model in the current run of a space."""
    repo_id = RepoRef(f"{owner}/{name}").repo_id
    assignment = cluster_service.get_assignment(services.database, repo_id, query.space, viewer)
    return schemas.ModelCluster.from_assignment(repo_id, assignment)


@router.post(
    "/admin/clusters/runs",
    tags=["admin"],
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[no_query],
    responses=problems(SpaceNotFound, BodyTooLarge),
)
def request_cluster_run(request: schemas.ClusterRunRequest, services: ServicesDep) -> schemas.ClusterRun:
    """Enqueue a cluster run of a space. If one is already queued or running, that run is returned."""
    run, space = cluster_service.request_run(services.database, request.parameters(), request.space)
    return schemas.ClusterRun.from_row(run, space.key, ADMIN)
