"""The tables. Vectors and activations are little-endian float32 bytes whose length the database checks."""

from catalog.tables import model_words as model_words
from catalog.tables.archives import Archive, ArchivePiece
from catalog.tables.audit import AuditEntry
from catalog.tables.base import Base, change_seq, claim_turn, cluster_number, one_of
from catalog.tables.blocks import Block, BlockKind
from catalog.tables.crawls import Crawl, CrawlState, FormerName
from catalog.tables.curation import ADMIN_AUTHOR, Alias, TeamNote, TeamTag
from catalog.tables.derived import (
    Cluster,
    ClusterMember,
    ClusterRun,
    FittedGeometry,
    IndexSnapshot,
    Map,
    MapAttempt,
    RunState,
)
from catalog.tables.jobs import ACTIVE, RUNNING, TERMINAL, Job, JobEvent, JobState, PausedQueue, Priority, Worker
from catalog.tables.keys import ApiKey, Role
from catalog.tables.merges import Merge, MergeVector
from catalog.tables.models import (
    BaseActivations,
    BaseProof,
    Model,
    ModelAccess,
    ModelState,
    Revision,
    Source,
    SpaceRow,
    Vector,
)
from catalog.tables.quarantine import QuarantineEntry, QuarantineKind
from catalog.tables.reindexes import ACTIVE_REINDEX, Reindex, ReindexMove, ReindexState, Stage
from catalog.tables.selections import Selection
from catalog.tables.stored import StoredVector, VectorOrigin
from catalog.tables.tasks import Task, TaskRun, TaskVector

__all__ = [
    "ACTIVE",
    "ACTIVE_REINDEX",
    "ADMIN_AUTHOR",
    "RUNNING",
    "TERMINAL",
    "Alias",
    "ApiKey",
    "Archive",
    "ArchivePiece",
    "AuditEntry",
    "Base",
    "BaseActivations",
    "BaseProof",
    "Block",
    "BlockKind",
    "Cluster",
    "ClusterMember",
    "ClusterRun",
    "Crawl",
    "CrawlState",
    "FittedGeometry",
    "FormerName",
    "IndexSnapshot",
    "Job",
    "JobEvent",
    "JobState",
    "Map",
    "MapAttempt",
    "Merge",
    "MergeVector",
    "Model",
    "ModelAccess",
    "ModelState",
    "PausedQueue",
    "Priority",
    "QuarantineEntry",
    "QuarantineKind",
    "Reindex",
    "ReindexMove",
    "ReindexState",
    "Revision",
    "Role",
    "RunState",
    "Selection",
    "Source",
    "SpaceRow",
    "Stage",
    "StoredVector",
    "Task",
    "TaskRun",
    "TaskVector",
    "TeamNote",
    "TeamTag",
    "Vector",
    "VectorOrigin",
    "Worker",
    "change_seq",
    "claim_turn",
    "cluster_number",
    "one_of",
]
