from __future__ import annotations

import numpy as np

from catalog.clusters.matching import kept


def matched(labels: list[int], before: list[int], count: int) -> list[int | None]:
    return kept(np.array(labels), np.array(before), count)


def test_a_cluster_keeps_its_number_while_most_of_its_members_stay():
    assert matched([0, 0, 0, 1, 1, 1, -1], [9, 9, 9, 4, 4, 4, 4], 2) == [9, 4]


def test_when_a_cluster_splits_the_larger_part_keeps_the_number():
    assert matched([0, 0, 1, 1, 1], [7] * 5, 2) == [None, 7]


def test_a_half_is_not_most():
    assert matched([0, 0, 1, 1], [7] * 4, 2) == [None, None]


def test_when_clusters_merge_the_larger_one_lives_on():
    assert matched([0] * 5, [3, 3, 5, 5, 5], 1) == [5]


def test_noise_has_no_number_to_keep():
    assert matched([0, 0, 0], [-1, -1, -1], 1) == [None]


def test_without_models_in_common_all_are_new():
    assert matched([], [], 2) == [None, None]
