"""Work on one whole space, in a process of its own: `python -m workers.maintenance index|clusters|map SPACE_ID`.

It makes way for searches and encoding on the same machine, and must do so before numpy and FAISS count the cores.
"""

from __future__ import annotations

import os
import sys


def yield_to_others() -> None:
    """Half of the cores at most, and those only when nobody else wants them."""
    os.nice(19)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[len(cores) // 2 :])
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def main(name: str, space_id: int) -> int:
    """The exit code of the process."""
    if name == "index":
        from catalog.index import builder

        return builder.main(space_id)
    if name == "clusters":
        from catalog.clusters import runner as cluster_runner

        return cluster_runner.main(space_id)
    if name == "map":
        from catalog.maps import runner as map_runner

        return map_runner.main(space_id)
    print(f"There is no {name!r}: give index, clusters or map, and the number of a space.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    yield_to_others()
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
