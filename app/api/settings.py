"""The settings that the app was created with."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from catalog.settings import Settings


async def _settings(request: Request) -> Settings:
    return request.app.state.settings


SettingsDep = Annotated[Settings, Depends(_settings)]
