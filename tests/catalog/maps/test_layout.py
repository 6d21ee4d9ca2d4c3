import numpy as np
import pytest

from catalog.maps.layout import align, initial_coordinates, lay_out, principal_components
from tests.support.points import grouped_vectors


@pytest.fixture(scope="module")
def rows():
    return grouped_vectors(120)


@pytest.fixture(scope="module")
def first(rows):
    return lay_out(rows[:110])


def test_empty_space_has_an_empty_layout():
    layout = lay_out(np.empty((0, 8), np.float32))

    assert layout.coordinates.shape == (0, 2)
    assert layout.distortion.shape == (0,)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 11, 12, 13, 25])
def test_each_model_gets_its_own_coordinates(n):
    layout = lay_out(grouped_vectors(n))

    assert layout.coordinates.shape == (n, 2)
    assert layout.coordinates.dtype == np.float32
    assert np.isfinite(layout.coordinates).all()
    assert len(np.unique(layout.coordinates, axis=0)) == n


def test_points_of_a_group_are_nearest_to_each_other(rows, first):
    distances = np.linalg.norm(first.coordinates[:, None] - first.coordinates[None], axis=2)
    np.fill_diagonal(distances, np.inf)

    assert (distances.argmin(axis=1) % 5 == np.arange(110) % 5).all()


def test_layout_is_deterministic(rows, first):
    assert np.array_equal(lay_out(rows[:110]).coordinates, first.coordinates)


def test_known_points_move_little_when_models_arrive(rows, first):
    previous = np.full((120, 2), np.nan, np.float32)
    previous[:110] = first.coordinates

    updated = lay_out(rows, previous).coordinates
    from_scratch = lay_out(rows[::-1]).coordinates[::-1]

    moved = np.linalg.norm(updated[:110] - first.coordinates, axis=1)
    radius = np.linalg.norm(first.coordinates - first.coordinates.mean(axis=0), axis=1).max()
    assert np.median(moved) < 0.2 * radius
    assert np.median(moved) < np.median(np.linalg.norm(from_scratch[:110] - first.coordinates, axis=1))


def test_parameters_contain_the_previous_models_and_whether_it_was_an_update(rows, first):
    previous = np.full((120, 2), np.nan, np.float32)
    previous[:110] = first.coordinates

    parameters = lay_out(rows, previous).parameters

    assert parameters["previous_models"] == 110
    assert parameters["update"]
    assert not first.parameters["update"]


def test_map_of_mostly_new_points_is_laid_out_from_scratch(rows, first):
    previous = np.full((120, 2), np.nan, np.float32)
    previous[:20] = first.coordinates[:20]

    assert not lay_out(rows, previous).parameters["update"]


def test_duplicate_vectors_get_finite_coordinates():
    duplicates = np.repeat(grouped_vectors(10, noise=0.0), 4, axis=0)

    layout = lay_out(duplicates)

    assert np.isfinite(layout.coordinates).all()


def test_known_points_start_at_their_previous_coordinates_and_new_ones_near_their_neighbors(rows, first):
    previous = np.full((120, 2), np.nan, np.float32)
    previous[:110] = first.coordinates

    initial = initial_coordinates(rows, previous)

    assert np.allclose(initial[:110], first.coordinates)
    groups = [first.coordinates[np.arange(110) % 5 == i % 5] for i in range(110, 120)]
    distances = [
        np.linalg.norm(point - group, axis=1).min() for point, group in zip(initial[110:], groups, strict=True)
    ]
    widths = [np.ptp(group, axis=0).max() for group in groups]
    assert all(distance <= width for distance, width in zip(distances, widths, strict=True))


def test_align_reverts_rotation_reflection_and_translation(first):
    angle = 2.0
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([1, -1])

    aligned = align(first.coordinates @ rotation + [30, -7], first.coordinates)

    assert np.allclose(aligned, first.coordinates, atol=1e-3)


def test_align_does_not_scale(first):
    aligned = align(first.coordinates * 2, first.coordinates)

    assert np.isclose(np.ptp(aligned[:, 0]), 2 * np.ptp(first.coordinates[:, 0]), rtol=1e-3)


def test_align_ignores_points_that_are_not_known(first):
    previous = first.coordinates.copy()
    previous[50:] = np.nan

    aligned = align(first.coordinates + np.float32(9), previous)

    assert np.allclose(aligned, first.coordinates, atol=1e-3)


def test_principal_components_have_a_fixed_sign(rows):
    components = principal_components(rows)

    assert (components[np.abs(components).argmax(axis=0), [0, 1]] > 0).all()
