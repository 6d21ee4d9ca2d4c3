"""Lengths of time in SQL."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import ColumnElement, func


def seconds(value: float) -> ColumnElement[timedelta]:
    return func.make_interval(0, 0, 0, 0, 0, 0, value)
