"""Tasks by example, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic takes it from here alone before Python 3.12

from app.api.jobs.schemas import JobError
from app.api.schemas import FIRST_MISTAKE, NO_NUL, Space, Strict
from app.api.search.schemas import Geometry, Neighbor
from catalog import tables
from catalog.auth.viewer import Viewer
from catalog.database import storable
from catalog.geometry.transforms import RAW, SERVED
from catalog.models.repo_ref import RepoRef
from catalog.search import service as search_service
from catalog.search.reranking import Page
from catalog.tables import JobState
from catalog.tasks import ranking as task_ranking
from catalog.tasks import service as task_service
from catalog.tasks.examples import LEAST, MAX_CHARACTERS, MOST, read_examples

NAME = "^([A-Za-z]|[0-9]+[A-Za-z._-])[A-Za-z0-9._-]*$"  # digits alone are a number


MAX_TURNS = 2_500  # of a chat of one-letter messages, more are longer than a row may be
PASSED_OVER = ConfigDict(extra="ignore")  # data sets have more columns than these


def _storable(given: Any) -> Any:
    """Texts that were cut within an emoji end with half of it, which pydantic does not take."""
    return storable(given) if isinstance(given, str) else given


Text = Annotated[str, Field(max_length=MAX_CHARACTERS), BeforeValidator(_storable)]


@with_config(PASSED_OVER)
class Turn(TypedDict, total=False):
    """A message of a chat; other fields are passed over."""

    role: Annotated[str, Field(max_length=100)] | None
    content: Text | None


@with_config(PASSED_OVER)
class Row(TypedDict, total=False):
    """An example; other fields are passed over."""

    instruction: Text | None
    input: Text | None
    output: Text | None
    messages: Annotated[list[Turn], Field(max_length=MAX_TURNS), FIRST_MISTAKE] | None


class TaskRequest(Strict):
    examples: Annotated[list[Row], FIRST_MISTAKE] = Field(
        max_length=MOST,
        description=f"{LEAST} to {MOST} of `{{instruction, input?, output}}`, or of `{{messages: [...]}}` that end "
        "with the assistant's.",
    )
    base: str | None = Field(None, max_length=200, description="Repo id; every base in the index without.")
    name: str | None = Field(None, max_length=96, pattern=NAME, description="By which expressions know it.")
    verify: int = Field(0, ge=0, le=20, description="Score so many of the nearest on examples that are held back.")
    seed: int = Field(0, ge=0, lt=2**31)
    keep_examples: bool = Field(False, description="Keep the examples after the task's last job.")

    keep_adapter: bool = Field(False, description="Keep the adapter that is trained on all examples, to be downloaded.")

    def question(self) -> task_service.Question:
        """Raises `InvalidExamples` and `InvalidRepoId`."""
        return task_service.Question(
            read_examples(self.examples),
            RepoRef(self.base).repo_id if self.base is not None else None,
            self.name,
            self.verify,
            self.seed,
            self.keep_examples,
            self.keep_adapter,
        )


class Score(BaseModel):
    """How well one of the nearest models says the outputs that were held back."""

    repo_id: str
    similarity: float
    loss: float | None = Field(description="Nats a token; null where it could not be scored.")
    error: str | None = Field(description="Code of what stood in the way.")


class TaskRun(BaseModel):
    """A task on one base, and what its job is at."""

    base: str
    sha: str
    job: int
    state: JobState
    progress: float
    error: JobError | None
    seconds: float | None = Field(description="That the job took.")
    held_back: int | None = Field(description="Examples that models were scored on.")
    base_loss: float | None = Field(description="Of the base itself on those, nats a token.")
    scores: list[Score] | None
    agreement: float | None = Field(description="Spearman's correlation of similarity and of loss saved.")
    borne_out: bool | None = Field(description="Whether the nearest model does better than the base.")

    @classmethod
    def of(cls, run: tables.TaskRun, job: tables.Job) -> Self:
        figures = run.figures or {}
        told = {name: figures.get(name) for name in ("seconds", "held_back", "base_loss", "agreement")}
        scores = figures.get("scores")
        return cls(
            base=run.base_repo,
            sha=run.base_sha,
            job=job.id,
            state=JobState(job.state),
            progress=job.progress,
            error=JobError.of(job.error_code, job.error_message),
            scores=scores,
            borne_out=_borne_out(scores, told["base_loss"]),
            **told,
        )


class Task(BaseModel):
    id: int
    name: str | None
    examples: int
    examples_kept: bool = Field(description="Whether they are still here.")
    keep_adapter: bool = Field(description="Whether its adapter can be downloaded once its job is done.")
    verify: int
    seed: int
    recipe: dict[str, Any] = Field(description="How its adapters are trained.")
    runs: list[TaskRun]
    created_at: datetime

    @classmethod
    def of(cls, task: tables.Task, jobs: Mapping[int, tables.Job]) -> Self:
        names = ("id", "name", "verify", "keep_adapter", "seed", "recipe", "created_at")
        own = {name: getattr(task, name) for name in names}
        runs = [TaskRun.of(run, jobs[run.id]) for run in task.runs]
        return cls(examples=task.count, examples_kept=task.examples is not None, runs=runs, **own)


class Tasks(BaseModel):
    tasks: list[Task]
    next_cursor: str | None


class AdapterQuery(Strict):
    base: str | None = Field(None, max_length=200, pattern=NO_NUL, description="The one trained on this base.")


class TaskNeighborsQuery(Strict):
    k: int = Field(10, ge=1, le=search_service.MAX_K)
    base: str | None = Field(None, max_length=200, pattern=NO_NUL, description="On this base alone.")
    geometry: Annotated[str | None, Field(pattern=f"^({'|'.join((RAW, *SERVED))})$")] = None

    def options(self, viewer: Viewer) -> search_service.Options:
        return search_service.Options(page=Page(self.k), geometry=self.geometry, unconfident=True, viewer=viewer)


class TaskNeighbor(Neighbor):
    low: float = Field(description="Between this and `high` the similarity lies for other examples of the task.")
    high: float
    first: float = Field(description="Share of the halves of the examples to which it is the nearest.")


NOT_COVERED = (
    "Nothing here is like this task, as far as can be told: the nearest model is no nearer than models of other tasks "
    "are. What stands first may be only the least unlike; `verify` tells whether it helps."
)


HALVES_DISAGREE = (
    "Most halves of the examples are nearest to another model than all of them together are: take the order with care."
)


class TaskNeighborsOnBase(BaseModel):
    base: str
    space: Space
    geometry: Geometry
    covered: bool | None = Field(
        description="Whether the nearest model is nearer than models of other tasks are; null where nobody "
        "has measured what that takes in this space."
    )
    note: str | None
    neighbors: list[TaskNeighbor]

    @classmethod
    def of(cls, found: task_ranking.TaskAnswer) -> Self:
        neighbours = [
            TaskNeighbor(**Neighbor.of(each).model_dump(), low=sure.low, high=sure.high, first=sure.first)
            for each, sure in zip(found.answer.neighbours, found.certainty, strict=True)
        ]
        return cls(
            base=found.run.base_repo,
            space=Space.of(found.answer.space),
            geometry=Geometry.of(found.answer.fitted),
            covered=found.covered,
            note=_note(found),
            neighbors=neighbours,
        )


class TaskNeighbors(BaseModel):
    """On each base by itself: similarities of different bases do not compare."""

    bases: list[TaskNeighborsOnBase]


def _borne_out(scores: list[dict[str, Any]] | None, base_loss: float | None) -> bool | None:
    if not scores or base_loss is None or scores[0]["loss"] is None:
        return None
    return bool(scores[0]["loss"] < base_loss)


def _note(found: task_ranking.TaskAnswer) -> str | None:
    if found.covered is False:
        return NOT_COVERED
    first = [sure.first for sure in found.certainty]
    return HALVES_DISAGREE if first and first[0] < 0.5 < max(first) else None
