import numpy as np
import pytest

from catalog.maps.distortion import BLOCK_ROWS, distortion, neighbor_counts


def nearest_in_plane(coordinates, count):
    distances = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1, kind="stable")[:, :count]


@pytest.mark.parametrize(("n", "counts"), [(1, (0, 0)), (2, (1, 1)), (15, (2, 7)), (61, (10, 30)), (10**5, (10, 30))])
def test_neighbor_counts_are_10_and_30_and_fewer_for_small_maps(n, counts):
    assert neighbor_counts(n) == counts


def test_map_that_preserves_the_neighbors_has_no_distortion():
    coordinates = np.random.default_rng(0).normal(size=(200, 2))

    assert not distortion(nearest_in_plane(coordinates, 10), coordinates).any()


def test_distortion_is_the_share_of_true_neighbors_outside_the_nearest_30():
    generator = np.random.default_rng(1)
    coordinates = generator.normal(size=(150, 2))
    true = np.stack([generator.permutation(np.delete(np.arange(150), i))[:10] for i in range(150)])

    near = nearest_in_plane(coordinates, 30)
    expected = [np.mean([j not in near[i] for j in true[i]]) for i in range(150)]

    assert np.allclose(distortion(true, coordinates), expected)


def test_misplaced_point_has_high_distortion():
    generator = np.random.default_rng(2)
    coordinates = generator.normal(size=(200, 2))
    true = nearest_in_plane(coordinates, 10)
    moved = coordinates.copy()
    moved[7] = [1000, 1000]
    moved[8:48] = [1001, 1000] + generator.normal(size=(40, 2)) * 0.1  # so that point 7 has near points there

    assert distortion(true, moved)[7] >= 0.7
    assert distortion(true, coordinates)[7] == 0


def test_random_map_has_the_distortion_of_chance():
    generator = np.random.default_rng(3)
    true = np.stack([generator.permutation(np.delete(np.arange(1000), i))[:10] for i in range(1000)])

    assert distortion(true, generator.normal(size=(1000, 2))).mean() == pytest.approx(1 - 30 / 999, abs=0.01)


def test_points_beyond_the_first_block_are_measured():
    n = BLOCK_ROWS + 100
    coordinates = np.column_stack([np.arange(n), np.zeros(n)])
    true = np.roll(np.arange(n), -1)[:, None]  # the next point; that of the last one is at the other end

    shares = distortion(true, coordinates)

    assert shares[-1] == 1
    assert not shares[:-1].any()


@pytest.mark.parametrize("n", [0, 1])
def test_points_without_neighbors_have_no_distortion(n):
    assert distortion(np.empty((n, 0), np.int64), np.zeros((n, 2))).tolist() == [0] * n
