"""Build an index, clusters or a map of one space: `python -m workers.maintenance index|clusters|map SPACE_ID`.

The process lowers its priority below searches and encoding on the same machine, before numpy and FAISS count the cores.
"""

from __future__ import annotations

import os
import sys


def lower_priority() -> None:
    """Use at most half of the cores, and only when they are idle."""
    os.nice(19)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[len(cores) // 2 :])
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def main(name: str, space_id: int) -> int:
    """Run the build, and return the exit code of the process."""
    if name == "index":
        from catalog.index import builder

        return builder.main(space_id)
    if name == "clusters":
        from catalog.clusters import runner as cluster_runner

        return cluster_runner.main(space_id)
    if name == "map":
        from catalog.maps import runner as map_runner

        return map_runner.main(space_id)
    print(f"Unknown build {name!r}. Usage: python -m workers.maintenance index|clusters|map SPACE_ID", file=sys.stderr)
    return 2


if __name__ == "__main__":
    lower_priority()
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
