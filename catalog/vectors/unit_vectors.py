"""All vectors of a space, for what is made of the whole of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from sqlalchemy.orm import Session

from catalog.tables import SpaceRow
from catalog.vectors.numeric import unit_rows
from catalog.vectors.repository import stream as vector_stream

IN_MEMORY = 256 * 2**20  # bytes of float32 vectors above which they are kept as float16 in a file


def load(session: Session, space: SpaceRow, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The public models (n,) of a space and their unit vectors (n, d): float32, or float16 from a file without a name
    in `folder`. What is stored meanwhile may be left out.
    """
    count = vector_stream.count(session, space.id, space.dimension, public=True)
    model_ids, filled = np.empty(count, np.int64), 0
    unit: np.ndarray
    if 4 * count * space.dimension <= IN_MEMORY:
        unit = np.empty((count, space.dimension), np.float32)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, 2 * count * space.dimension)
            unit = np.asarray(np.memmap(file, np.float16, "r+", shape=(count, space.dimension)))
    for ids, block in vector_stream.stream(session, space.id, space.dimension, public=True):
        taken = min(len(ids), count - filled)
        model_ids[filled : filled + taken] = ids[:taken]
        unit[filled : filled + taken] = unit_rows(block[:taken])
        filled += taken
    return model_ids[:filled], unit[:filled]
