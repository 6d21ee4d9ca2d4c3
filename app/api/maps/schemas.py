"""The map as JSON: columns, not a list of objects, so that 100,000 points stay under two megabytes."""

from __future__ import annotations

from pydantic import BaseModel, Field


class MapCluster(BaseModel):
    id: int
    name: str
    size: int


class MapPoints(BaseModel):
    """The models of the drawing, by column. Row i of every column is the same model."""

    owners: list[tuple[str, list[str]]] = Field(
        description="Names by owner, in the order of the rows: repo ids are OWNER/NAME."
    )
    x: list[int]
    y: list[int]
    cluster: list[int] = Field(description="Place in `clusters`; -1: none.")
    distortion: list[int] = Field(description="How many of its true nearest neighbours are far from it on the map.")


class MapArrivals(BaseModel):
    """Models that came since, or moved, put among their nearest neighbours. Their rows follow those of `points`."""

    repo_ids: list[str]
    x: list[int]
    y: list[int]
    cluster: list[int]


class Map(BaseModel):
    space: str = Field(description="Key of its space.")
    version: int = Field(description="Of the drawing; models that come since do not change it.")
    side: int = Field(description="Coordinates are whole numbers from 0 to this; y grows upwards.")
    neighbours: int = Field(description="True nearest neighbours that `distortion` is out of.")
    mean_distortion: float = Field(description="Mean share of true neighbours that are far on the map.")
    clusters: list[MapCluster] = Field(description="Of the run that is shown, the largest first.")
    points: MapPoints
    placed: MapArrivals
    gone: list[int] = Field(description="Rows of `points` that are not there any more: left, or placed anew.")
