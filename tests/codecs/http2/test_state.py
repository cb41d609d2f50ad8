"""The table of stream states, whole."""

from mesh_codecs.http2 import state
from mesh_codecs.http2.state import ILLEGAL, NEXT, TRANSITIONS, StreamInput, StreamState

TABLE = """
                   RECV_HEADERS       RECV_DATA          RECV_END_STREAM    RECV_RST_STREAM    SEND_HEADERS       SEND_DATA          SEND_END_STREAM    SEND_RST_STREAM
IDLE               OPEN               -                  -                  -                  OPEN               -                  -                  -
OPEN               OPEN               OPEN               HALF_CLOSED_REMOTE CLOSED             OPEN               OPEN               HALF_CLOSED_LOCAL  CLOSED
HALF_CLOSED_LOCAL  HALF_CLOSED_LOCAL  HALF_CLOSED_LOCAL  CLOSED             CLOSED             -                  -                  -                  CLOSED
HALF_CLOSED_REMOTE -                  -                  -                  CLOSED             HALF_CLOSED_REMOTE HALF_CLOSED_REMOTE CLOSED             CLOSED
CLOSED             -                  -                  -                  -                  -                  -                  -                  -
"""  # noqa: E501


def test_table_is_that_of_the_rfc() -> None:
    lines = ["".ljust(19) + "".join(i.name.ljust(19) for i in StreamInput).rstrip()]
    for at in StreamState:
        cells = [TRANSITIONS.get((at, i)) for i in StreamInput]
        lines.append(at.name.ljust(19) + "".join((c.name if c is not None else "-").ljust(19) for c in cells).rstrip())
    assert "\n" + "\n".join(lines) + "\n" == TABLE


def test_rows_say_the_same_as_the_table() -> None:
    for at in StreamState:
        for step in StreamInput:
            assert NEXT[at][step] == TRANSITIONS.get((at, step), ILLEGAL)


def test_plain_numbers_are_those_of_the_enums() -> None:
    for member in [*StreamState, *StreamInput]:
        assert getattr(state, member.name) == member


def test_repr_shows_state() -> None:
    assert repr(state.Stream(3, state.OPEN, 10, 20, -1, 0)) == "<Stream 3 OPEN send=10 recv=20>"
