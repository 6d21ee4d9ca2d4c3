"""The route of the Hub's webhook."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.security import APIKeyHeader
from pydantic import AliasChoices, BaseModel, Field

from app.api.limits import no_query
from app.api.problems import problems
from app.api.schemas import FIRST_ERROR_ONLY
from app.api.services.services import ServicesDep
from app.api.settings import SettingsDep
from catalog.errors import BodyTooLarge, InvalidWebhookSecret, WebhookDisabled
from catalog.hub_sync import webhooks as webhook_service
from catalog.hub_sync.webhooks import HubEvent, Outcome

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])
SECRET_HEADER = "X-Webhook-Secret"
MAX_REFS = 5_000  # of one push; pushing a mirrored repo updates all of its branches and tags at once
_secret = APIKeyHeader(
    name=SECRET_HEADER, scheme_name="WebhookSecret", auto_error=False, description="`DELTADEX_WEBHOOK_SECRET`."
)


def require_secret(settings: SettingsDep, secret: Annotated[str | None, Depends(_secret)]) -> None:
    """Raises `WebhookDisabled` if no secret is configured, and `InvalidWebhookSecret`."""
    if settings.webhook_secret is None or not settings.webhook_secret.get_secret_value():
        raise WebhookDisabled("The webhook is disabled. Set DELTADEX_WEBHOOK_SECRET to the secret that the Hub sends.")
    if not hmac.compare_digest(settings.webhook_secret.get_secret_value().encode(), (secret or "").encode()):
        raise InvalidWebhookSecret(f"Send the webhook secret in the header {SECRET_HEADER}.")


class DeliveryEvent(BaseModel):
    action: str = Field(max_length=100)
    scope: str = Field(max_length=100)


class DeliveryRepo(BaseModel):
    type: str = Field(max_length=100)
    name: str = Field(max_length=200)
    private: bool
    id: str | None = Field(None, max_length=100, pattern="^[0-9A-Za-z_-]+$")
    # documented as headSha; huggingface_hub's own class of the payload has head_sha
    head_sha: str | None = Field(None, pattern="^[0-9a-f]{40}$", validation_alias=AliasChoices("headSha", "head_sha"))


class DeliveryTarget(BaseModel):
    name: str = Field(max_length=200)


class DeliveryRef(BaseModel):
    ref: str = Field(max_length=1_000)


class Delivery(BaseModel):
    """The fields of the Hub's payload, version 3, that are used. Further fields are ignored."""

    event: DeliveryEvent
    repo: DeliveryRepo
    movedTo: DeliveryTarget | None = None
    updatedRefs: Annotated[list[DeliveryRef], FIRST_ERROR_ONLY] | None = Field(None, max_length=MAX_REFS)

    def to_event(self) -> HubEvent:
        return HubEvent(
            self.event.action,
            self.event.scope,
            self.repo.name,
            self.repo.private,
            hub_id=self.repo.id,
            head_sha=self.repo.head_sha,
            moved_to=self.movedTo.name if self.movedTo else None,
            refs=tuple(update.ref for update in self.updatedRefs) if self.updatedRefs is not None else None,
        )


class DeliveryResult(BaseModel):
    outcome: Outcome
    job: int | None = Field(description="Id of the created job.")


@router.post(
    "/hub",
    dependencies=[no_query, Depends(require_secret)],
    responses=problems(WebhookDisabled, InvalidWebhookSecret, BodyTooLarge),
)
def receive_delivery(delivery: Delivery, services: ServicesDep) -> DeliveryResult:
    """Receive a delivery of the Hub's webhook: queue pushed models, remove deleted and private ones, follow renames.
    Repeated deliveries have no effect.
    """
    if delivery.repo.type != "model":
        return DeliveryResult(outcome=Outcome.NOTHING, job=None)
    outcome, job = webhook_service.receive(services.database, delivery.to_event())
    return DeliveryResult(outcome=outcome, job=job.id if job else None)
