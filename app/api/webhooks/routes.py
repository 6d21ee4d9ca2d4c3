"""Routes: what the Hub tells by itself."""

from __future__ import annotations

import hmac
from typing import Annotated, Self

from fastapi import APIRouter, Depends
from fastapi.security import APIKeyHeader
from pydantic import BaseModel, Field

from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import FIRST_MISTAKE
from app.api.services.services import ServicesDep
from app.api.settings import SettingsDep
from catalog.errors import BodyTooLarge, WebhookOff, WebhookSecretWrong
from catalog.hub_sync import webhooks as webhook_service
from catalog.hub_sync.webhooks import HubEvent, Outcome

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])
SECRET_HEADER = "X-Webhook-Secret"
MAX_REFS = 20_000  # that one push moves; a mirrored repo brings all of its branches and tags at once
_secret = APIKeyHeader(
    name=SECRET_HEADER, scheme_name="WebhookSecret", auto_error=False, description="`DELTADEX_WEBHOOK_SECRET`."
)


def require_secret(settings: SettingsDep, secret: Annotated[str | None, Depends(_secret)]) -> None:
    """Raises `WebhookOff` where no secret is set, and `WebhookSecretWrong`."""
    if settings.webhook_secret is None or not settings.webhook_secret.get_secret_value():
        raise WebhookOff("The webhook is off: set DELTADEX_WEBHOOK_SECRET to the secret that the Hub is to send.")
    if not hmac.compare_digest(settings.webhook_secret.get_secret_value().encode(), (secret or "").encode()):
        raise WebhookSecretWrong(f"Send the webhook's secret in the header {SECRET_HEADER}.")


class _Event(BaseModel):
    action: str = Field(max_length=100)
    scope: str = Field(max_length=100)


class _Repo(BaseModel):
    type: str = Field(max_length=100)
    name: str = Field(max_length=200)
    private: bool
    id: str | None = Field(None, max_length=100, pattern="^[0-9A-Za-z_-]+$")
    headSha: str | None = Field(None, pattern="^[0-9a-f]{40}$")


class _Moved(BaseModel):
    name: str = Field(max_length=200)


class _Ref(BaseModel):
    ref: str = Field(max_length=1_000)


class Delivery(BaseModel):
    """The Hub's payload, version 3, as far as it is looked at; it may hold more."""

    event: _Event
    repo: _Repo
    movedTo: _Moved | None = None
    updatedRefs: Annotated[list[_Ref], FIRST_MISTAKE] | None = Field(None, max_length=MAX_REFS)

    def told(self) -> HubEvent:
        return HubEvent(
            self.event.action,
            self.event.scope,
            self.repo.name,
            self.repo.private,
            hub_id=self.repo.id,
            head_sha=self.repo.headSha,
            moved_to=self.movedTo.name if self.movedTo else None,
            refs=tuple(each.ref for each in self.updatedRefs) if self.updatedRefs is not None else None,
        )


class Received(BaseModel):
    outcome: Outcome
    job: int | None = Field(description="The job that was made.")

    @classmethod
    def of(cls, outcome: Outcome, job: int | None = None) -> Self:
        return cls(outcome=outcome, job=job)


@router.post(
    "/hub",
    dependencies=[no_query, Depends(require_secret)],
    responses=problems(WebhookOff, WebhookSecretWrong, BodyTooLarge),
)
def hub(delivery: Delivery, services: ServicesDep) -> Received:
    """For the Hub's webhook: a push is embedded, what is deleted or private leaves the index, a rename is followed.
    The same delivery twice does nothing twice.
    """
    if delivery.repo.type != "model":
        return Received.of(Outcome.NOTHING)
    outcome, job = webhook_service.receive(services.database, delivery.told())
    return Received.of(outcome, job.id if job else None)
