from __future__ import annotations

from catalog.database import MAX_ERROR_MESSAGE, ErrorRecord
from catalog.errors import DiskFull


def test_catalog_error_is_stored_with_code_and_message():
    record = ErrorRecord.from_error(DiskFull("No room."))
    assert record.columns() == {"error_code": "disk_full", "error_message": "No room."}


def test_other_exception_is_stored_as_internal_error_with_its_repr():
    assert ErrorRecord.from_error(KeyError("x")) == ErrorRecord("internal_error", "KeyError('x')")


def test_long_message_is_truncated():
    assert ErrorRecord.from_error(DiskFull("x" * (MAX_ERROR_MESSAGE + 1))).message == "x" * MAX_ERROR_MESSAGE


def test_message_is_made_storable_in_postgres():
    assert ErrorRecord.from_error(DiskFull("a\0b\ud800")).message == "a\ufffdb?"


def test_error_record_prints_as_code_and_message():
    assert str(ErrorRecord.from_error(DiskFull("No room."))) == "disk_full: No room."
