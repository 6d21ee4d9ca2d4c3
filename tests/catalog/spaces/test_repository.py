from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from catalog.auth.viewer import ADMIN, PUBLIC, Viewer
from catalog.database import Database
from catalog.errors import SpaceNotFound
from catalog.spaces import repository as spaces
from catalog.spaces.repository import BaseMeasurement
from tests.support.catalog import BASE, SPACE, put, put_private

ME = Viewer("me")


def test_space_is_stored_once(database: Database):
    with database.transaction() as session:
        first = spaces.ensure(session, SPACE, 4)
        second = spaces.ensure(session, dataclasses.replace(SPACE), 4)
        assert first.id == second.id
        assert len(spaces.list_visible(session, ADMIN)) == 1


def test_stored_space_has_the_same_fields(database: Database):
    space = dataclasses.replace(SPACE, base_repo=None, base_sha=None)
    with database.transaction() as session:
        spaces.ensure(session, space, 4)
    with database.transaction() as session:
        row = spaces.get(session, space.key, ADMIN)
    assert {name: getattr(row, name) for name in dataclasses.asdict(space)} == dataclasses.asdict(space)
    assert row.dimension == 4


def test_unknown_key_raises_space_not_found(database: Database):
    with pytest.raises(SpaceNotFound), database.transaction() as session:
        spaces.get(session, "0" * 64)


def test_newest_space_is_listed_first(database: Database):
    with database.transaction() as session:
        ids = [spaces.ensure(session, dataclasses.replace(SPACE, encoder_version=str(n)), 4).id for n in range(3)]
        assert [row.id for row in spaces.list_visible(session, ADMIN)] == ids[::-1]


def test_base_activations_are_stored_bit_for_bit(database: Database):
    activations = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    with database.transaction() as session:
        spaces.store_base_measurement(session, SPACE, "a/b", "sha", BaseMeasurement(activations, 0.25))
    with database.transaction() as session:
        stored = spaces.find_base_measurement(session, SPACE, "a/b", "sha")
    assert stored is not None
    np.testing.assert_array_equal(stored.activations, activations)
    assert stored.activations.dtype == np.float32
    assert stored.noise_floor == 0.25


def test_measurement_of_another_base_or_space_is_none(database: Database):
    with database.transaction() as session:
        spaces.store_base_measurement(session, SPACE, "a/b", "sha", BaseMeasurement(np.ones((1, 2)), 0))
        assert spaces.find_base_measurement(session, SPACE, "a/b", "other") is None
        assert spaces.find_base_measurement(session, SPACE, "a/c", "sha") is None
        assert spaces.find_base_measurement(session, dataclasses.replace(SPACE, layer=0), "a/b", "sha") is None


def test_first_stored_activations_stay(database: Database):
    with database.transaction() as session:
        spaces.store_base_measurement(session, SPACE, "a/b", "sha", BaseMeasurement(np.ones((1, 2)), 1))
        spaces.store_base_measurement(session, SPACE, "a/b", "sha", BaseMeasurement(np.zeros((1, 2)), 2))
        stored = spaces.find_base_measurement(session, SPACE, "a/b", "sha")
    assert stored is not None
    assert (stored.noise_floor, stored.activations.tolist()) == (1, [[1, 1]])


def test_space_is_visible_to_viewers_of_its_models(database: Database):
    private_base = dataclasses.replace(SPACE, base_repo="hidden/base")
    with database.transaction() as session:
        spaces.ensure(session, dataclasses.replace(SPACE, base_repo="nobodys/yet"), 2)
    put(database, "a/open", [1, 0])
    put_private(database, "a/hidden", [1, 0], "me", space=private_base)
    with database.transaction() as session:
        listed = {viewer: [row.base_repo for row in spaces.list_visible(session, viewer)] for viewer in (PUBLIC, ME)}
        with pytest.raises(SpaceNotFound):
            spaces.get(session, private_base.key, Viewer("you"))
        assert spaces.get(session, private_base.key, ME).base_repo == "hidden/base"
    assert listed == {PUBLIC: [SPACE.base_repo], ME: ["hidden/base", SPACE.base_repo]}


def test_pinned_commit_of_a_base_is_that_of_the_preferred_feature(database: Database):
    put(database, "a/wide", [1, 0, 0], space=dataclasses.replace(SPACE, base_sha="1" * 40))
    put(database, "a/layers", [1, 0], space=dataclasses.replace(SPACE, feature="delta_layers", base_sha="2" * 40))
    with database.transaction() as session:
        assert spaces.pinned_commit(session, BASE) == "2" * 40
        assert spaces.list_bases(session, BASE, PUBLIC) == [(BASE, "2" * 40)]


def test_narrowest_base_comes_first(database: Database):
    for base, width in (("a/wide", 3), ("b/narrow", 2), ("c/wide", 3)):
        put(database, f"{base}-tuned", [1] * width, space=dataclasses.replace(SPACE, base_repo=base), base=base)
    with database.transaction() as session:
        assert [repo for repo, _ in spaces.list_bases(session, None, PUBLIC)] == ["b/narrow", "a/wide", "c/wide"]
