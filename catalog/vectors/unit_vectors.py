"""Loads all vectors of a space, for clusters, maps and geometries."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from sqlalchemy.orm import Session

from catalog.tables import SpaceRow
from catalog.vectors.numeric import normalize
from catalog.vectors.repository import stream as vector_stream

MAX_IN_MEMORY = 256 * 2**20  # bytes of float32 vectors; larger spaces are kept as float16 in a file


def load_unit_vectors(session: Session, space: SpaceRow, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The ids (n,) of the public models of a space, and their unit vectors (n, d).

    The vectors are float32 in memory, or float16 mapped from an unnamed temporary file in `folder`. The session is a
    `Database.snapshot`, so that its count and its vectors are of one moment.
    """
    count = vector_stream.count(session, space.id, space.dimension, public=True)
    model_ids, filled = np.empty(count, np.int64), 0
    unit: np.ndarray
    if 4 * count * space.dimension <= MAX_IN_MEMORY:
        unit = np.empty((count, space.dimension), np.float32)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, 2 * count * space.dimension)
            unit = np.asarray(np.memmap(file, np.float16, "r+", shape=(count, space.dimension)))
    for ids, block in vector_stream.stream(session, space.id, space.dimension, public=True):
        model_ids[filled : filled + len(ids)] = ids
        unit[filled : filled + len(ids)] = normalize(block)
        filled += len(ids)
    return model_ids, unit
