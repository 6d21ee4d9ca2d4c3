# ruff: noqa: F403
"""The error tree. Each class carries its HTTP status and a stable code; the sentence tells the person what to do.

CatalogError
├── InvalidInput                    the request or the file given is malformed
│   ├── InvalidRepoId, InvalidRevision, InvalidCursor, InvalidVector, InvalidProbeSet
│   ├── InvalidExpression, InvalidName, UnknownFeature, InvalidLabels, InvalidExamples
│   └── TokenMalformed, WeakKey, BodyTooLarge
├── NotFound                        nothing of that name here
│   ├── ModelNotFound, JobNotFound, SpaceNotFound, ClusterNotFound, RunNotFound, CrawlNotFound
│   ├── ReindexNotFound, TermNotFound, VectorNotFound, TaskNotFound, MergeNotFound, ArchiveNotFound
│   └── SelectionNotFound
├── Conflict                        well formed, but at odds with what is stored
│   ├── NotIndexed, NoShift, SpaceRequired, SpaceMismatch, NameTaken, AlreadyRunning
│   ├── AmbiguousTerm, NothingLeft, TooManyVectors, TaskNotDone, ExamplesNotKept, MergeNotDone
│   ├── NotClustered, NotMapped, GeometryNotFitted, CrawlOver, JobOver, NotRetriable, TokenRequired
│   └── ReindexActive, ReindexOver, ReindexNotReady, ReindexIncomplete
├── Refused                         an ingest that can never succeed as it stands; stored on the job, not retried
│   ├── RepoNotFound, RevisionNotFound, RepoGated
│   ├── NothingToEmbed, PickledWeights, RemoteCode, UnsafePath, TooManyFiles, FileTooLarge, FolderUnreadable
│   ├── CorruptWeights, NonFiniteWeights, NonFiniteVector
│   ├── InvalidAdapterConfig, InvalidModelConfig, UnsupportedAdapter, QuantisedWeights
│   ├── MergeIncompatible, NoCandidates
│   ├── ShapeMismatch, BaseUnresolved, UnsupportedBase, NativeCodeFailed
│   └── WorkerLost, Quarantined, ExamplesGone, TokenExpired
├── Forbidden                       not for whoever asks
│   └── AdminOnly, AdminKeyRequired, KeyRequired, TokensOff, WebhookOff, WebhookSecretWrong
├── Misconfigured                   this machine lacks what the settings ask for
│   └── MissingExtra, ServerFailed
└── Unavailable                     transient; an ingest is retried with backoff
    ├── HubUnavailable, HubRateLimited, DownloadStopped, DiskFull, OutOfMemory, DeadlineExceeded, BaseDisturbed
    ├── TooManyJobs, TokenUnreadable, ContractDiffers
    └── DatabaseUnavailable, IndexNotLoaded, IndexDamaged, NotRunning
"""

from catalog.errors.conditions import *
from catalog.errors.ingests import *
from catalog.errors.requests import *
from catalog.errors.root import *
