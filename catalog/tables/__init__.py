# ruff: noqa: F403
"""The tables. Vectors and activations are little-endian float32 bytes whose length the database checks."""

from catalog import words as words
from catalog.tables.archives import *
from catalog.tables.base import *
from catalog.tables.crawls import *
from catalog.tables.derived import *
from catalog.tables.jobs import *
from catalog.tables.merges import *
from catalog.tables.models import *
from catalog.tables.reindexes import *
from catalog.tables.selections import *
from catalog.tables.stored import *
from catalog.tables.tasks import *
