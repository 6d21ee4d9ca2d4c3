"""The process that builds a main segment: `python -m catalog.build_index SPACE_ID`.

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


if __name__ == "__main__":
    yield_to_others()
    from catalog.index import build

    sys.exit(build.main(int(sys.argv[1])))
