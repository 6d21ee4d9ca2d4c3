import numpy as np
import pytest

from catalog.maps.layout import aligned, lay_out, principal_places, started
from tests.support.points import grouped


@pytest.fixture(scope="module")
def rows():
    return grouped(120)


@pytest.fixture(scope="module")
def first(rows):
    return lay_out(rows[:110])


def test_nothing_has_no_places():
    layout = lay_out(np.empty((0, 8), np.float32))

    assert layout.places.shape == (0, 2)
    assert layout.distortion.shape == (0,)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 11, 12, 13, 25])
def test_any_number_of_models_is_drawn_each_at_its_own_place(n):
    layout = lay_out(grouped(n))

    assert layout.places.shape == (n, 2)
    assert layout.places.dtype == np.float32
    assert np.isfinite(layout.places).all()
    assert len(np.unique(layout.places, axis=0)) == n


def test_the_points_of_a_group_are_nearest_to_each_other(rows, first):
    apart = np.linalg.norm(first.places[:, None] - first.places[None], axis=2)
    np.fill_diagonal(apart, np.inf)

    assert (apart.argmin(axis=1) % 5 == np.arange(110) % 5).all()


def test_the_same_vectors_give_the_same_map(rows, first):
    assert np.array_equal(lay_out(rows[:110]).places, first.places)


def test_models_that_arrive_do_not_make_the_map_jump(rows, first):
    last = np.full((120, 2), np.nan, np.float32)
    last[:110] = first.places

    after = lay_out(rows, last).places
    anew = lay_out(rows[::-1])  # what the same vectors look like without the last map

    moved = np.linalg.norm(after[:110] - first.places, axis=1)
    across = np.linalg.norm(first.places - first.places.mean(axis=0), axis=1).max()
    assert np.median(moved) < 0.2 * across
    assert np.median(moved) < np.median(np.linalg.norm(anew.places[::-1][:110] - first.places, axis=1))


def test_what_was_known_is_kept_with_the_map(rows, first):
    last = np.full((120, 2), np.nan, np.float32)
    last[:110] = first.places

    parameters = lay_out(rows, last).parameters

    assert parameters["known"] == 110
    assert parameters["standing"]
    assert not first.parameters["standing"]


def test_a_map_that_has_mostly_new_points_is_drawn_anew(rows, first):
    last = np.full((120, 2), np.nan, np.float32)
    last[:20] = first.places[:20]

    assert not lay_out(rows, last).parameters["standing"]


def test_twins_of_vectors_do_not_break_it():
    twins = np.repeat(grouped(10, noise=0.0), 4, axis=0)

    layout = lay_out(twins)

    assert np.isfinite(layout.places).all()


def test_known_points_start_where_they_were_and_new_ones_beside_their_neighbours(rows, first):
    last = np.full((120, 2), np.nan, np.float32)
    last[:110] = first.places

    start = started(rows, last)

    assert np.allclose(start[:110], first.places)
    own = [first.places[np.arange(110) % 5 == i % 5] for i in range(110, 120)]
    inside = [np.linalg.norm(place - group, axis=1).min() for place, group in zip(start[110:], own, strict=True)]
    widths = [np.ptp(group, axis=0).max() for group in own]
    assert all(distance <= width for distance, width in zip(inside, widths, strict=True))


def test_a_turned_mirrored_and_moved_map_is_laid_back(first):
    angle = 2.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([1, -1])

    back = aligned(first.places @ turn + [30, -7], first.places)

    assert np.allclose(back, first.places, atol=1e-3)


def test_a_map_is_not_stretched_to_fit(first):
    back = aligned(first.places * 2, first.places)

    assert np.isclose(np.ptp(back[:, 0]), 2 * np.ptp(first.places[:, 0]), rtol=1e-3)


def test_points_that_left_do_not_pull_the_map(first):
    last = first.places.copy()
    last[50:] = np.nan

    back = aligned(first.places + np.float32(9), last)

    assert np.allclose(back, first.places, atol=1e-3)


def test_components_have_a_fixed_sign(rows):
    places = principal_places(rows)

    assert (places[np.abs(places).argmax(axis=0), [0, 1]] > 0).all()
