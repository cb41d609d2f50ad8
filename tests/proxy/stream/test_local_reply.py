"""The table of answers to what can go wrong upstream."""

from __future__ import annotations

from mesh_codecs.errors import ResetReason
from mesh_proxy.stream import flags
from mesh_proxy.stream.local_reply import RESET_ANSWERS


def test_every_reason_has_an_answer_with_a_flag_that_is_printed() -> None:
    assert set(RESET_ANSWERS) == set(ResetReason)
    for answer in RESET_ANSWERS.values():
        assert answer.http_status in (502, 503)
        assert flags.short_names(answer.flag) != "-"
