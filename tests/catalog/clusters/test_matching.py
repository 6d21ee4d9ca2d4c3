from __future__ import annotations

import numpy as np

from catalog.clusters.matching import match_to_previous


def match(labels: list[int], previous: list[int], count: int) -> list[int | None]:
    return match_to_previous(np.array(labels), np.array(previous), count)


def test_cluster_keeps_its_id_while_most_of_its_members_stay():
    assert match([0, 0, 0, 1, 1, 1, -1], [9, 9, 9, 4, 4, 4, 4], 2) == [9, 4]


def test_larger_part_of_a_split_cluster_keeps_the_id():
    assert match([0, 0, 1, 1, 1], [7] * 5, 2) == [None, 7]


def test_half_of_the_members_is_not_enough_to_keep_the_id():
    assert match([0, 0, 1, 1], [7] * 4, 2) == [None, None]


def test_merged_cluster_keeps_the_id_of_the_larger_one():
    assert match([0] * 5, [3, 3, 5, 5, 5], 1) == [5]


def test_noise_has_no_id_to_keep():
    assert match([0, 0, 0], [-1, -1, -1], 1) == [None]


def test_all_clusters_are_new_without_shared_models():
    assert match([], [], 2) == [None, None]
