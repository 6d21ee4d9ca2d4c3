"""The process that draws the map of a space: `python -m catalog.fit_map SPACE_ID`.

Like `catalog.build_index` it makes way for searches and encoding, before numpy counts the cores.
"""

from __future__ import annotations

import sys

from catalog.build_index import yield_to_others

if __name__ == "__main__":
    yield_to_others()
    from catalog import drawing

    sys.exit(drawing.main(int(sys.argv[1])))
