"""JSON documents keep what they are given, and take bounded memory."""

import math
import tracemalloc

import pytest

from easyclf.documents import MOST_BYTES, read_document, write_document
from easyclf.exceptions import InvalidFile


@pytest.mark.parametrize(
    "document",
    [None, True, 0, -(2**70), 0.1, 5e-324, math.inf, "ä\udc80\U0001f600", [], {"": [{"a": None}]}],
)
def test_documents_come_back(document):
    assert read_document(write_document(document)) == document


def test_nan_comes_back():
    assert math.isnan(read_document(write_document(math.nan)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "damaged"),
        (b"{", "damaged"),
        (b"\xff", "damaged"),
        (b"{} {}", "damaged"),
        (b"1" * 5000, "damaged"),
        (b"[" * 10**5, "too deep"),
        (b'{"a": 1, "a": 1}', "a name twice"),
        (b" " * (MOST_BYTES + 1), "too large"),
        (b"[" + b"0," * 2**19 + b"0]", "too large"),
    ],
)
def test_other_documents_are_refused(data, reason):
    with pytest.raises(InvalidFile, match=reason):
        read_document(data)


def test_no_document_takes_much_memory():
    value = b'{"a":1}'
    n_values = 2**19 // (value.count(b"{") + value.count(b"[") + 1) - 1
    data = b"[" + b",".join([value] * min(n_values, MOST_BYTES // (len(value) + 1) - 1)) + b"]"
    tracemalloc.start()
    try:
        read_document(data)
        assert tracemalloc.get_traced_memory()[1] < 150e6
    finally:
        tracemalloc.stop()


def test_documents_that_could_not_be_read_are_not_written():
    with pytest.raises(ValueError, match="too large for a file of easyclf"):
        write_document([0] * 2**20)
