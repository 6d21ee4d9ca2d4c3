import numpy as np

from catalog.maps.placement import BLOCK, NEIGHBOURS, place
from tests.support.points import grouped


def test_a_vector_goes_among_its_group():
    known = grouped(100)
    places = np.stack([[100.0 * (i % 5), i / 100] for i in range(100)])

    found = place(grouped(105)[100:], known, places)

    assert np.allclose(found[:, 0], [0, 100, 200, 300, 400])


def test_the_nearer_neighbour_weighs_more():
    known = np.eye(NEIGHBOURS + 3, dtype=np.float32)
    places = np.zeros((NEIGHBOURS + 3, 2))
    places[0], places[1] = [1, 0], [0, 1]
    vector = np.zeros((1, NEIGHBOURS + 3), np.float32)
    vector[0, :2] = [0.8, 0.6]

    x, y = place(vector, known, places)[0]

    assert np.isclose(x / y, 0.8 / 0.6)


def test_neighbours_that_are_as_near_as_each_other_weigh_the_same():
    known = np.tile(np.eye(4, dtype=np.float32)[0], (20, 1))
    places = np.tile([3.0, 4.0], (20, 1))

    assert np.allclose(place(known[:1], known, places), [[3, 4]])


def test_one_known_point_is_where_all_go():
    known = grouped(1)

    assert np.allclose(place(grouped(5), known, np.array([[2.0, 3.0]])), [2, 3])


def test_on_an_empty_map_it_is_the_origin():
    assert np.array_equal(place(grouped(2), np.empty((0, 64), np.float32), np.empty((0, 2))), np.zeros((2, 2)))


def test_more_vectors_than_a_block_are_placed_as_one_by_one():
    known = grouped(50)
    places = np.random.default_rng(0).normal(size=(50, 2))
    many = grouped(BLOCK + 3)

    found = place(many, known, places)

    assert found.shape == (BLOCK + 3, 2)
    assert np.allclose(found[-1], place(many[-1:], known, places)[0], atol=1e-4)


def test_nobody_new_is_nothing():
    assert place(grouped(0), grouped(3), np.zeros((3, 2))).shape == (0, 2)
