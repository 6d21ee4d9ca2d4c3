"""JSON of tasks by example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, with_config
from typing_extensions import TypedDict  # before Python 3.12, pydantic does not accept that of `typing`

from app.api.jobs.schemas import JobError
from app.api.schemas import FIRST_ERROR_ONLY, NO_NUL, Space, Strict
from app.api.search.schemas import Geometry, GeometryField, Neighbor
from catalog import tables
from catalog.auth.viewer import PUBLIC, Viewer
from catalog.database import storable
from catalog.geometry.transforms import GeometryChoice
from catalog.models.repo_ref import RepoRef
from catalog.search import service as search_service
from catalog.search.reranking import PageOptions
from catalog.tables import JobState
from catalog.tasks import ranking as task_ranking
from catalog.tasks import service as task_service
from catalog.tasks.examples import MAX_CHARACTERS, MAX_EXAMPLES, MIN_EXAMPLES, parse_examples

NAME = "^([A-Za-z]|[0-9]+[A-Za-z._-])[A-Za-z0-9._-]*$"  # a name of digits alone would be taken for an id

MAX_MESSAGES = 2_500  # a longer chat exceeds MAX_CHARACTERS even with one letter per message
IGNORE_EXTRA = ConfigDict(extra="ignore")  # rows of datasets have further columns


def _storable(value: Any) -> Any:
    """Replace unpaired surrogates, which truncated emojis leave and which pydantic rejects."""
    return storable(value) if isinstance(value, str) else value


Text = Annotated[str, Field(max_length=MAX_CHARACTERS), BeforeValidator(_storable)]


@with_config(IGNORE_EXTRA)
class ChatMessage(TypedDict, total=False):
    """A message of a chat; other fields are ignored."""

    role: Annotated[str, Field(max_length=100)] | None
    content: Text | None


@with_config(IGNORE_EXTRA)
class ExampleRow(TypedDict, total=False):
    """An example; other fields are ignored."""

    instruction: Text | None
    input: Text | None
    output: Text | None
    messages: Annotated[list[ChatMessage], Field(max_length=MAX_MESSAGES), FIRST_ERROR_ONLY] | None


class TaskRequest(Strict):
    examples: Annotated[list[ExampleRow], FIRST_ERROR_ONLY] = Field(
        max_length=MAX_EXAMPLES,
        description=f"{MIN_EXAMPLES} to {MAX_EXAMPLES} examples, each `{{instruction, input?, output}}` or a chat "
        "`{messages: [...]}` that ends with a message of the assistant.",
    )
    base: str | None = Field(
        None,
        max_length=200,
        description=f"Repo id. Default: every base in the index; required beyond {task_service.MAX_BASES} of them.",
    )
    name: str | None = Field(None, max_length=96, pattern=NAME, description="Name of the task in expressions.")
    verify: int = Field(0, ge=0, le=20, description="Number of nearest models to score on a holdout of the examples.")
    seed: int = Field(0, ge=0, lt=2**31)
    keep_examples: bool = Field(False, description="Keep the examples after the task's last job.")
    keep_adapter: bool = Field(False, description="Keep the adapter that is trained on all examples for download.")

    def to_request(self) -> task_service.TaskRequest:
        """Raises `InvalidExamples` and `InvalidRepoId`."""
        return task_service.TaskRequest(
            parse_examples(self.examples),
            RepoRef(self.base).repo_id if self.base is not None else None,
            self.name,
            self.verify,
            self.seed,
            self.keep_examples,
            self.keep_adapter,
        )


class Score(BaseModel):
    """The loss of one of the nearest models on the holdout."""

    repo_id: str
    similarity: float
    loss: float | None = Field(description="In nats per token; null if the model could not be scored.")
    error: str | None = Field(description="Error code, if the model could not be scored.")


class TaskRun(BaseModel):
    """A task on one base, and the state of its job."""

    base: str
    base_sha: str
    job: int
    state: JobState
    progress: float
    error: JobError | None
    seconds: float | None = Field(description="Duration of the job.")
    holdout_examples: int | None = Field(description="Number of examples that models were scored on.")
    base_loss: float | None = Field(description="Loss of the base model on the holdout, in nats per token.")
    scores: list[Score] | None
    rank_correlation: float | None = Field(description="Spearman's, of similarity and negative loss.")
    nearest_beats_base: bool | None = Field(description="Whether the nearest model has a lower loss than the base.")

    @classmethod
    def from_row(cls, run: tables.TaskRun, job: tables.Job, viewer: Viewer) -> Self:
        metrics = run.metrics or {}
        names = ("seconds", "holdout_examples", "base_loss", "rank_correlation")
        fields = {name: metrics.get(name) for name in names}
        scores = metrics.get("scores")
        return cls(
            base=run.base_repo,
            base_sha=run.base_sha,
            job=job.id,
            state=JobState(job.state),
            progress=job.progress,
            error=JobError.from_columns(job.error_code, job.error_message, viewer),
            scores=scores,
            nearest_beats_base=_nearest_beats_base(scores, fields["base_loss"]),
            **fields,
        )


class Task(BaseModel):
    id: int
    name: str | None
    examples: int = Field(description="Number of examples.")
    examples_kept: bool = Field(description="Whether the examples are still stored.")
    keep_adapter: bool = Field(description="Whether the adapter can be downloaded once the job is done.")
    verify: int
    seed: int
    training_config: dict[str, Any] = Field(description="How its adapters are trained.")
    runs: list[TaskRun]
    created_at: datetime

    @classmethod
    def from_row(cls, task: tables.Task, jobs: Mapping[int, tables.Job], viewer: Viewer = PUBLIC) -> Self:
        names = ("id", "name", "verify", "keep_adapter", "seed", "training_config", "created_at")
        columns = {name: getattr(task, name) for name in names}
        runs = [TaskRun.from_row(run, jobs[run.id], viewer) for run in task.runs]
        return cls(examples=task.count, examples_kept=task.examples is not None, runs=runs, **columns)


class Tasks(BaseModel):
    tasks: list[Task]
    next_cursor: str | None


class AdapterQuery(Strict):
    base: str | None = Field(None, max_length=200, pattern=NO_NUL, description="Base that the adapter was trained on.")


class TaskNeighborsQuery(Strict):
    k: int = Field(10, ge=1, le=search_service.MAX_K)
    base: str | None = Field(None, max_length=200, pattern=NO_NUL, description="Neighbors on this base alone.")
    geometry: GeometryField = GeometryChoice.DEFAULT

    def options(self, viewer: Viewer) -> search_service.SearchOptions:
        return search_service.SearchOptions(
            page=PageOptions(self.k), geometry=self.geometry, include_low_confidence=True, viewer=viewer
        )


class TaskNeighbor(Neighbor):
    low: float = Field(description="Lower bound of the 95% interval of the similarity over other examples of the task.")
    high: float = Field(description="Upper bound of that interval.")
    nearest_share: float = Field(description="Share of the halves of the examples to which it is the nearest.")


NOT_COVERED = (
    "Probably no indexed model covers this task: the nearest one is no nearer than models of other tasks usually are. "
    "Create the task with `verify` to measure whether the nearest models help."
)


HALVES_DISAGREE = (
    "The order of the models is uncertain: for most halves of the examples another model is nearer than the first one."
)


class TaskNeighborsOnBase(BaseModel):
    base: str
    space: Space
    geometry: Geometry
    covered: bool | None = Field(
        description="Whether the nearest model is nearer than models of other tasks usually are; null if no threshold "
        "was measured for this feature and geometry."
    )
    note: str | None
    neighbors: list[TaskNeighbor]

    @classmethod
    def from_answer(cls, task_answer: task_ranking.TaskAnswer) -> Self:
        answer = task_answer.answer
        return cls(
            base=task_answer.run.base_repo,
            space=Space.from_row(answer.space),
            geometry=Geometry.from_fitted(answer.fitted),
            covered=task_answer.covered,
            note=_note(task_answer),
            neighbors=[
                TaskNeighbor(**Neighbor.from_neighbor(neighbor).model_dump(), **asdict(uncertainty))
                for neighbor, uncertainty in zip(answer.neighbors, task_answer.uncertainties, strict=True)
            ],
        )


class TaskNeighbors(BaseModel):
    """The neighbors on each base separately, since similarities on different bases are not comparable."""

    bases: list[TaskNeighborsOnBase]


def _nearest_beats_base(scores: list[dict[str, Any]] | None, base_loss: float | None) -> bool | None:
    if not scores or base_loss is None or scores[0]["loss"] is None:
        return None
    return bool(scores[0]["loss"] < base_loss)


def _note(answer: task_ranking.TaskAnswer) -> str | None:
    if answer.covered is False:
        return NOT_COVERED
    shares = [uncertainty.nearest_share for uncertainty in answer.uncertainties]
    return HALVES_DISAGREE if shares and shares[0] < 0.5 < max(shares) else None
