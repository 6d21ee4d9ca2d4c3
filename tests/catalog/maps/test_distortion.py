import numpy as np
import pytest

from catalog.maps.distortion import BLOCK, distortion, reach


def nearest_in_plane(places, count):
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    return np.argsort(apart, axis=1, kind="stable")[:, :count]


@pytest.mark.parametrize(("n", "found"), [(1, (0, 0)), (2, (1, 1)), (15, (2, 7)), (61, (10, 30)), (10**5, (10, 30))])
def test_ten_among_thirty_but_fewer_where_there_are_few(n, found):
    assert reach(n) == found


def test_a_map_that_keeps_the_neighbours_has_none():
    places = np.random.default_rng(0).normal(size=(200, 2))

    assert not distortion(nearest_in_plane(places, 10), places).any()


def test_it_is_the_share_of_true_neighbours_that_are_not_among_the_nearest_thirty():
    generator = np.random.default_rng(1)
    places = generator.normal(size=(150, 2))
    true = np.stack([generator.permutation(np.delete(np.arange(150), i))[:10] for i in range(150)])

    near = nearest_in_plane(places, 30)
    expected = [np.mean([j not in near[i] for j in true[i]]) for i in range(150)]

    assert np.allclose(distortion(true, places), expected)


def test_one_point_that_is_torn_away_is_told_from_the_others():
    generator = np.random.default_rng(2)
    places = generator.normal(size=(200, 2))
    true = nearest_in_plane(places, 10)
    away = places.copy()
    away[7] = [1000, 1000]
    away[8:48] = [1001, 1000] + generator.normal(size=(40, 2)) * 0.1  # others for company

    assert distortion(true, away)[7] >= 0.7
    assert distortion(true, places)[7] == 0


def test_a_map_that_says_nothing_is_as_bad_as_chance():
    generator = np.random.default_rng(3)
    true = np.stack([generator.permutation(np.delete(np.arange(1000), i))[:10] for i in range(1000)])

    assert distortion(true, generator.normal(size=(1000, 2))).mean() == pytest.approx(1 - 30 / 999, abs=0.01)


def test_more_points_than_a_block_are_each_measured():
    n = BLOCK + 100
    places = np.column_stack([np.arange(n), np.zeros(n)])
    true = np.roll(np.arange(n), -1)[:, None]  # the next one; the last point's is at the other end

    shares = distortion(true, places)

    assert shares[-1] == 1
    assert not shares[:-1].any()


@pytest.mark.parametrize("n", [0, 1])
def test_no_neighbours_no_distortion(n):
    assert distortion(np.empty((n, 0), np.int64), np.zeros((n, 2))).tolist() == [0] * n
