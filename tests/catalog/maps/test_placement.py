import numpy as np

from catalog.maps.placement import BLOCK_ROWS, WEIGHTED_NEIGHBORS, place
from tests.support.points import grouped_vectors


def test_vector_is_placed_among_its_group():
    known = grouped_vectors(100)
    coordinates = np.stack([[100.0 * (i % 5), i / 100] for i in range(100)])

    placed = place(grouped_vectors(105)[100:], known, coordinates)

    assert np.allclose(placed[:, 0], [0, 100, 200, 300, 400])


def test_nearer_neighbors_weigh_more():
    known = np.eye(WEIGHTED_NEIGHBORS + 3, dtype=np.float32)
    coordinates = np.zeros((WEIGHTED_NEIGHBORS + 3, 2))
    coordinates[0], coordinates[1] = [1, 0], [0, 1]
    vector = np.zeros((1, WEIGHTED_NEIGHBORS + 3), np.float32)
    vector[0, :2] = [0.8, 0.6]

    x, y = place(vector, known, coordinates)[0]

    assert np.isclose(x / y, 0.8 / 0.6)


def test_equally_near_neighbors_weigh_the_same():
    known = np.tile(np.eye(4, dtype=np.float32)[0], (20, 1))
    coordinates = np.tile([3.0, 4.0], (20, 1))

    assert np.allclose(place(known[:1], known, coordinates), [[3, 4]])


def test_all_vectors_are_placed_on_the_only_known_point():
    known = grouped_vectors(1)

    assert np.allclose(place(grouped_vectors(5), known, np.array([[2.0, 3.0]])), [2, 3])


def test_vectors_are_placed_at_the_origin_of_an_empty_map():
    assert np.array_equal(place(grouped_vectors(2), np.empty((0, 64), np.float32), np.empty((0, 2))), np.zeros((2, 2)))


def test_vectors_beyond_the_first_block_are_placed_like_single_ones():
    known = grouped_vectors(50)
    coordinates = np.random.default_rng(0).normal(size=(50, 2))
    many = grouped_vectors(BLOCK_ROWS + 3)

    placed = place(many, known, coordinates)

    assert placed.shape == (BLOCK_ROWS + 3, 2)
    assert np.allclose(placed[-1], place(many[-1:], known, coordinates)[0], atol=1e-4)


def test_no_vectors_give_no_coordinates():
    assert place(grouped_vectors(0), grouped_vectors(3), np.zeros((3, 2))).shape == (0, 2)
