from __future__ import annotations

from catalog.error_record import MAX_MESSAGE, ErrorRecord
from catalog.errors import DiskFull


def test_an_error_of_ours_is_stored_with_its_code_and_message():
    record = ErrorRecord.from_error(DiskFull("No room."))
    assert record.columns() == {"error_code": "disk_full", "error_message": "No room."}


def test_another_error_is_stored_as_an_internal_one_with_its_repr():
    assert ErrorRecord.from_error(KeyError("x")) == ErrorRecord("internal_error", "KeyError('x')")


def test_a_long_message_is_cut():
    assert ErrorRecord.from_error(DiskFull("x" * (MAX_MESSAGE + 1))).message == "x" * MAX_MESSAGE


def test_a_message_is_stored_as_postgres_takes_it():
    assert ErrorRecord.from_error(DiskFull("a\0b\ud800")).message == "a\ufffdb?"


def test_a_record_reads_as_code_and_message():
    assert str(ErrorRecord.from_error(DiskFull("No room."))) == "disk_full: No room."
