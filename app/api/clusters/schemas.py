"""Clusters and the runs that found them, as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from app.api.jobs.schemas import JobError
from app.api.schemas import PageQuery, Space, SpaceName, Strict
from catalog import tables
from catalog.clusters import service as cluster_service
from catalog.clusters.parameters import DIMENSIONS, Algorithm, Parameters
from catalog.clusters.service import Placement


class RunsQuery(PageQuery):
    space: SpaceName = None


class RunQuery(Strict):
    run: int | None = Field(None, ge=1, lt=2**63, description="As this run found it; the last that had it without.")


class MembersQuery(PageQuery):
    run: int | None = Field(None, ge=1, lt=2**63, description="As this run found it; the last that had it without.")


class FitRequest(Strict):
    """How to cluster a space. What is left out is decided by the number of models."""

    space: SpaceName = None
    algorithm: Algorithm = "hdbscan"
    min_cluster_size: int | None = Field(None, ge=2, le=100_000, description="HDBSCAN: the fewest that are a cluster.")
    min_samples: int | None = Field(None, ge=1, le=1_000, description="HDBSCAN: neighbours that make a dense place.")
    clusters: int | None = Field(None, ge=1, le=10_000, description="k-means, agglomerative: how many to find.")
    dimensions: int = Field(DIMENSIONS, ge=0, le=1_024, description="That a large space is reduced to; 0: not at all.")
    seed: int = Field(0, ge=0, lt=2**32)

    def parameters(self) -> Parameters:
        """Raises `InvalidInput`."""
        return Parameters(**self.model_dump(exclude={"space"}))


class Run(BaseModel):
    id: int
    space: str = Field(description="Key of its space.")
    state: Literal["queued", "running", "done", "failed"]
    stage: str | None = Field(description="What it is at while it runs.")
    current: bool = Field(description="Whether it is the one that is shown.")
    asked_by: str
    algorithm: str
    parameters: dict[str, Any]
    covered_seq: int | None
    models: int | None
    clusters: int | None
    sizes: list[int] | None
    noise_share: float | None
    silhouette: float | None = Field(description="Mean over the clustered models, distance clip(1 - cos, 0, 1).")
    stability: float | None = Field(description="Adjusted Rand index against `compared_with`, over the models of both.")
    compared_with: int | None
    figures: dict[str, Any] | None
    seconds: float | None
    error: JobError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, run: tables.ClusterRun, space_key: str) -> Self:
        error = JobError.of(run.error_code, run.error_message)
        own = {name: getattr(run, name) for name in cls.model_fields if name not in ("space", "error")}
        return cls(**own, space=space_key, error=error)


class Runs(BaseModel):
    runs: list[Run]
    next_cursor: str | None


class RunComparison(BaseModel):
    run: int
    other: int
    models: int = Field(description="That both runs clustered.")
    adjusted_rand: float | None
    kept: list[int] = Field(description="Clusters that both runs have.")


class Term(BaseModel):
    term: str
    score: float
    share: float = Field(description="Of the members that were looked at.")


class Explanation(BaseModel):
    """What sets a cluster apart from the others, the most telling first."""

    words: list[Term] = Field(description="Of cards and names.")
    tags: list[Term]
    tokens: list[Term] = Field(description="That the members' shifts promote more than the other clusters' do.")


class Member(BaseModel):
    repo_id: str
    similarity: float = Field(description="Cosine to the cluster's centroid.")
    placed: bool = Field(description="Came after the run, and was put with the nearest cluster.")

    @classmethod
    def of(cls, member: tables.ClusterMember, repo_id: str) -> Self:
        return cls(repo_id=repo_id, similarity=member.similarity or 0.0, placed=member.placed)


class Cluster(BaseModel):
    id: int = Field(description="Its number, which it keeps from run to run while most of its members stay.")
    name: str
    size: int
    medoid: str = Field(description="The member nearest to the centroid.")
    cohesion: float = Field(description="Mean cosine of the members to the centroid.")
    radius: float = Field(description="Distance (1 - cosine) to the centroid that 99 in 100 members are within.")
    explanation: Explanation

    @classmethod
    def of(cls, cluster: tables.Cluster, medoid: str) -> Self:
        own = {name: getattr(cluster, name) for name in ("name", "size", "cohesion", "radius", "explanation")}
        return cls(id=cluster.cluster_id, medoid=medoid, **own)


class Clusters(BaseModel):
    space: Space
    run: Run
    clusters: list[Cluster]

    @classmethod
    def of(cls, found: cluster_service.Overview) -> Self:
        listed = [Cluster.of(cluster, medoid) for cluster, medoid in found.clusters]
        return cls(space=Space.of(found.space), run=Run.of(found.run, found.space.key), clusters=listed)


class ClusterDetail(Cluster):
    run: int
    current: bool = Field(description="Whether that run is the one that is shown.")
    closest: list[Member]

    @classmethod
    def with_members(cls, found: cluster_service.Detail) -> Self:
        return cls(
            **Cluster.of(found.cluster, found.medoid).model_dump(),
            run=found.run.id,
            current=found.run.current,
            closest=[Member.of(member, repo_id) for member, repo_id in found.closest],
        )


class Members(BaseModel):
    run: int
    members: list[Member]
    next_cursor: str | None


class ModelCluster(BaseModel):
    """Where a model is. No `cluster`: it is far from all of them."""

    repo_id: str
    space: str
    run: int
    cluster: int | None
    name: str | None
    similarity: float | None
    placed: bool

    @classmethod
    def of(cls, repo_id: str, found: Placement) -> Self:
        return cls(
            repo_id=repo_id,
            space=found.space_key,
            run=found.run_id,
            cluster=found.cluster_id,
            name=found.name,
            similarity=found.similarity,
            placed=found.placed,
        )
