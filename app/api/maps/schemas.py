"""JSON of the map. It has columns instead of a list of objects, so that 100,000 points take less than 2 MB."""

from __future__ import annotations

from pydantic import BaseModel, Field


class MapCluster(BaseModel):
    id: int
    name: str
    size: int


class MapPoints(BaseModel):
    """The models of the layout, by column. Row i of every column is the same model."""

    owners: list[tuple[str, list[str]]] = Field(
        description="The names of the models by owner, in the order of the rows; a repo id is OWNER/NAME."
    )
    x: list[int]
    y: list[int]
    cluster: list[int] = Field(description="Index into `clusters`; -1: none.")
    distortion: list[int] = Field(description="How many of the true nearest neighbors are far from it on the map.")


class MapArrivals(BaseModel):
    """Models that arrived or changed since, placed among their neighbors. Their rows follow those of `points`."""

    repo_ids: list[str]
    x: list[int]
    y: list[int]
    cluster: list[int]


class Map(BaseModel):
    space: str = Field(description="Key of the space.")
    version: int = Field(description="Id of the layout; arrivals do not change it.")
    side: int = Field(description="Coordinates are integers from 0 to this; y grows upwards.")
    neighbors: int = Field(description="Number of true nearest neighbors that `distortion` is out of.")
    mean_distortion: float = Field(description="Mean share of true nearest neighbors that are far on the map.")
    clusters: list[MapCluster] = Field(description="Clusters of the current run, largest first.")
    points: MapPoints
    arrivals: MapArrivals
    removed: list[int] = Field(description="Rows of `points` that are no longer valid: removed, or now in `arrivals`.")
