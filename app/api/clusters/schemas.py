"""JSON of clusters and cluster runs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field

from app.api.jobs.schemas import JobError
from app.api.schemas import PageQuery, Space, SpaceName, Strict, TeamTags
from catalog import tables
from catalog.auth.viewer import PUBLIC, Viewer
from catalog.clusters import service as cluster_service
from catalog.clusters.parameters import DIMENSIONS, Algorithm, Parameters
from catalog.clusters.service import Assignment


class ClustersQuery(PageQuery):
    space: SpaceName = None


class ClusterRunsQuery(PageQuery):
    space: SpaceName = None


RunId = Annotated[
    int | None, Field(ge=1, lt=2**63, description="Id of a run. Default: the newest one that has the cluster.")
]


class ClusterRunQuery(Strict):
    run: RunId = None


class ClusterMembersQuery(PageQuery):
    run: RunId = None
    team_tag: TeamTags = Field([], description="Only models with all of these team tags.")


class ClusterRunRequest(Strict):
    """How to cluster a space. Defaults depend on the number of models."""

    space: SpaceName = None
    algorithm: Algorithm = "hdbscan"
    min_cluster_size: int | None = Field(None, ge=2, le=100_000, description="HDBSCAN: minimal size of a cluster.")
    min_samples: int | None = Field(None, ge=1, le=1_000, description="HDBSCAN: neighbors of a core point.")
    clusters: int | None = Field(None, ge=1, le=10_000, description="k-means, agglomerative: number of clusters.")
    dimensions: int = Field(
        DIMENSIONS, ge=0, le=1_024, description="Dimensions that a large space is reduced to; 0 disables the reduction."
    )
    seed: int = Field(0, ge=0, lt=2**32)

    def parameters(self) -> Parameters:
        """Raises `InvalidInput`."""
        return Parameters(**self.model_dump(exclude={"space"}))


class ClusterRun(BaseModel):
    id: int
    space: str = Field(description="Key of the space.")
    state: Literal["queued", "running", "done", "failed"]
    stage: str | None = Field(description="Stage of a run in progress.")
    current: bool = Field(description="Whether it is the current run of its space.")
    requested_by: str
    algorithm: str
    parameters: dict[str, Any]
    covered_seq: int | None = Field(description="The last change of the space that the run covers.")
    models: int | None
    clusters: int | None
    sizes: list[int] | None
    noise_share: float | None
    silhouette: float | None = Field(description="Mean over the clustered models with distance clip(1 - cos, 0, 1).")
    stability: float | None = Field(description="Adjusted Rand index against the run `compared_with`.")
    compared_with: int | None
    metrics: dict[str, Any] | None
    seconds: float | None
    error: JobError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def from_row(cls, run: tables.ClusterRun, space_key: str, viewer: Viewer = PUBLIC) -> Self:
        error = JobError.from_columns(run.error_code, run.error_message, viewer)
        columns = {name: getattr(run, name) for name in cls.model_fields if name not in ("space", "error")}
        return cls(**columns, space=space_key, error=error)


class ClusterRuns(BaseModel):
    runs: list[ClusterRun]
    next_cursor: str | None


class ClusterRunComparison(BaseModel):
    run: int
    other: int
    models: int = Field(description="Models that both runs clustered.")
    adjusted_rand: float | None
    shared_clusters: list[int] = Field(description="Ids of the clusters that both runs have.")


class ClusterTerm(BaseModel):
    """A word, a tag or a token."""

    term: str
    score: float
    share: float = Field(description="Share of the sampled members that have it.")


class ClusterExplanation(BaseModel):
    """The words, tags and tokens that distinguish a cluster from the others, most distinctive first."""

    words: list[ClusterTerm] = Field(description="From cards and repo names.")
    tags: list[ClusterTerm]
    tokens: list[ClusterTerm] = Field(description="Promoted more by its members' shifts than by other clusters'.")


class ClusterMember(BaseModel):
    repo_id: str
    similarity: float = Field(description="Cosine to the cluster's centroid.")
    assigned_after_run: bool = Field(description="Arrived after the run and was assigned to the nearest cluster.")

    @classmethod
    def from_row(cls, member: tables.ClusterMember, repo_id: str) -> Self:
        return cls(repo_id=repo_id, similarity=member.similarity or 0.0, assigned_after_run=member.assigned_after_run)


class Cluster(BaseModel):
    id: int = Field(description="Stays the same from run to run while most of the members stay.")
    name: str
    size: int
    medoid: str = Field(description="The member nearest to the centroid.")
    cohesion: float = Field(description="Mean cosine of the members to the centroid.")
    radius: float = Field(description="Distance (1 - cosine) to the centroid within which 99% of the members are.")
    explanation: ClusterExplanation

    @classmethod
    def from_row(cls, cluster: tables.Cluster, medoid: str) -> Self:
        columns = {name: getattr(cluster, name) for name in ("name", "size", "cohesion", "radius", "explanation")}
        return cls(id=cluster.cluster_id, medoid=medoid, **columns)


class Clusters(BaseModel):
    space: Space
    run: ClusterRun = Field(description="The current run. If it differs from that of the page before, list them anew.")
    clusters: list[Cluster]
    next_cursor: str | None

    @classmethod
    def from_run(cls, result: cluster_service.RunClusters, next_cursor: str | None) -> Self:
        clusters = [Cluster.from_row(cluster, medoid) for cluster, medoid in result.clusters]
        run = ClusterRun.from_row(result.run, result.space.key)
        return cls(space=Space.from_row(result.space), run=run, clusters=clusters, next_cursor=next_cursor)


class ClusterDetail(Cluster):
    run: int
    current: bool = Field(description="Whether the run is the current run of its space.")
    closest: list[ClusterMember]

    @classmethod
    def from_detail(cls, detail: cluster_service.ClusterDetail) -> Self:
        return cls(
            **Cluster.from_row(detail.cluster, detail.medoid).model_dump(),
            run=detail.run.id,
            current=detail.run.current,
            closest=[ClusterMember.from_row(member, repo_id) for member, repo_id in detail.closest],
        )


class ClusterMembers(BaseModel):
    run: int
    members: list[ClusterMember]
    next_cursor: str | None


class ModelCluster(BaseModel):
    """The cluster of a model, or null if it is too far from all of them."""

    repo_id: str
    space: str
    run: int
    cluster: int | None
    name: str | None
    similarity: float | None
    assigned_after_run: bool

    @classmethod
    def from_assignment(cls, repo_id: str, assignment: Assignment) -> Self:
        return cls(
            repo_id=repo_id,
            space=assignment.space_key,
            run=assignment.run_id,
            cluster=assignment.cluster_id,
            name=assignment.name,
            similarity=assignment.similarity,
            assigned_after_run=assignment.assigned_after_run,
        )
