"""The table of answers to what can go wrong upstream, and how gRPC callers are told."""

from __future__ import annotations

import pytest

from mesh_codecs.errors import ResetReason
from mesh_proxy.stream import flags
from mesh_proxy.stream.local_reply import RESET_ANSWERS, grpc_message, grpc_status_of, is_grpc_content_type


def test_every_reason_has_an_answer_with_a_flag_that_is_printed() -> None:
    assert set(RESET_ANSWERS) == set(ResetReason)
    for answer in RESET_ANSWERS.values():
        assert answer.http_status in (502, 503)
        assert flags.short_names(answer.flag) != "-"


def test_grpc_status_and_message() -> None:
    assert [grpc_status_of(status) for status in (400, 401, 403, 404, 429, 503, 500)] == [13, 16, 7, 12, 14, 14, 2]
    assert grpc_message("100% é\n".encode()) == b"100%25 %C3%A9%0A"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;x=1", True),
        (b"application/grpc-web", False),
        (None, False),
    ],
)
def test_grpc_content_type(value: bytes | None, expected: bool) -> None:
    assert is_grpc_content_type(value) is expected
