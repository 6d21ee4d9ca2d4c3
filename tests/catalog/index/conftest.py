"""Fixtures: a space that is large enough for a main segment, and its builder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.filling import fill
from benchmarks.pool_like import PoolLike
from catalog.database import Database
from catalog.index.builder import IndexBuilder
from catalog.index.schedule import BuildPolicy
from tests.support.index import COUNT, DIMENSION


@pytest.fixture(scope="session")
def pool() -> np.ndarray:
    """Unit vectors (1,500, 32), distributed like those of real adapters."""
    return PoolLike(COUNT, DIMENSION).all()


@pytest.fixture
def filled(database: Database, pool: np.ndarray) -> Database:
    """A database with the pool as space 1; model i + 1 has vector i."""
    assert fill(database, COUNT, DIMENSION, [pool]) == 1
    return database


@pytest.fixture
def builder(filled: Database, tmp_path: Path) -> IndexBuilder:
    """A builder that builds main segments for spaces with more than 100 kB of vectors."""
    return IndexBuilder(filled, tmp_path / "index", BuildPolicy(exact_bytes=100_000, rows=100))
