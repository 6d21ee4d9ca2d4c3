from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from catalog.errors import ModelTooLarge
from workers.bases.memory_limit import DEFAULT_SHARE, MemoryLimit
from workers.process import memory

SHAPES = {"embed": (100, 8), "layer": (8, 8), "norm": (8,)}
COUNT = 100 * 8 + 8 * 8 + 8


@pytest.mark.parametrize(("dtype", "itemsize"), [("float32", 4), ("bfloat16", 2)])
def test_loading_needs_all_tensors_and_the_largest_one_in_float32(dtype: str, itemsize: int):
    required = COUNT * itemsize + 100 * 8 * 4
    assert MemoryLimit(0, dtype).required(SHAPES) == required
    MemoryLimit(required, dtype).check(SHAPES, "o/base")
    with pytest.raises(ModelTooLarge) as caught:
        MemoryLimit(required - 1, dtype).check(SHAPES, "o/base")
    assert f"{required:,}" in str(caught.value)
    assert not caught.value.transient


def test_limit_is_a_share_of_the_machine_and_never_more_than_it_has():
    total = memory.total_memory("cpu")
    assert total <= psutil.virtual_memory().total
    assert MemoryLimit.of_worker(None, "float32", "cpu").budget == int(DEFAULT_SHARE * total)
    assert MemoryLimit.of_worker(1000, "float32", "cpu").budget == 1000
    assert MemoryLimit.of_worker(2**60, "float32", "cpu").budget == total


def test_limits_of_control_groups_count(tmp_path: Path):
    groups, root = tmp_path / "groups", tmp_path / "cgroup"
    (root / "docker" / "worker").mkdir(parents=True)
    (root / "memory").mkdir()
    groups.write_text("0::/docker/worker\n3:memory:/docker\n2:cpu:/docker\n")
    (root / "docker" / "worker" / "memory.max").write_text("max\n")
    (root / "docker" / "memory.max").write_text("3000\n")
    (root / "memory" / "memory.limit_in_bytes").write_text("2000\n")
    assert sorted(memory._control_group_limits(root, groups)) == [2000, 3000]
    assert memory._control_group_limits(root, tmp_path / "missing") == []
