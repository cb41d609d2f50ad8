"""Both state machines against each other, against the clock and against messages at the wrong time."""

from __future__ import annotations

import pytest

from mesh_hotrestart import ChildConversation, ChildState, Message, ParentConversation, ParentState, TakeoverRefused, WireError
from mesh_hotrestart import messages as hr
from mesh_hotrestart.child import CHILD_STEPS, CHILD_TRANSITIONS
from mesh_hotrestart.parent import PARENT_TRANSITIONS, PARENT_WAITS

WELCOME = hr.Welcome(program="", pid=1, epoch=0, generation=1, started_at=0.0)
CONNECTION = hr.Connection(number=1, protocol="", listener="")
TO_PARENT: list[Message] = [
    hr.Hello(program="", pid=1), hr.PassSockets(), hr.Ready(), hr.Accepting(), hr.Adopted(number=1), hr.NotAdopted(number=1),
    hr.Release(),
    hr.AskStats(),
]  # fmt: skip
TO_CHILD: list[Message] = [
    WELCOME,
    hr.Sockets(),
    hr.Proceed(),
    CONNECTION,
    hr.Late(number=1),
    hr.Finished(moved=0, drained=0, cut=0),
]


def test_a_whole_upgrade() -> None:
    parent, child = ParentConversation(0.0), ChildConversation()
    parent.receive(TO_PARENT[0], 0.0)
    child.receive(WELCOME)
    child.step("ask")
    parent.receive(TO_PARENT[1], 0.0)
    child.receive(hr.Sockets(last=False))
    assert child.state is ChildState.ASKING
    child.receive(hr.Sockets())
    child.step("ready")
    parent.receive(hr.Ready(), 0.0)
    assert not parent.handed_over
    child.receive(hr.Proceed())
    assert not child.serving
    child.step("accepting")
    assert child.serving
    parent.receive(hr.Accepting(), 0.0)
    assert parent.handed_over
    child.receive(CONNECTION)
    parent.receive(hr.Adopted(number=1), 0.0)
    child.receive(hr.Stats())
    child.receive(hr.Finished(moved=1, drained=0, cut=0))
    assert child.state is ChildState.ALONE
    parent.receive(hr.Release(), 0.0)
    assert parent.state is ParentState.RELEASED


@pytest.mark.parametrize("state", list(ParentState))
@pytest.mark.parametrize("message", TO_PARENT, ids=lambda message: type(message).__name__)
def test_the_parent_takes_what_the_table_says_and_nothing_else(state: ParentState, message: Message) -> None:
    parent = ParentConversation(0.0)
    parent.state = state
    expected = PARENT_TRANSITIONS.get((state, type(message)))
    if expected is None:
        with pytest.raises(WireError, match="must not come in state"):
            parent.receive(message, 0.0)
        assert parent.state is state
    else:
        parent.receive(message, 0.0)
        assert parent.state is expected


@pytest.mark.parametrize("state", list(ChildState))
@pytest.mark.parametrize("message", TO_CHILD, ids=lambda message: type(message).__name__)
def test_the_child_takes_what_the_table_says_and_nothing_else(state: ChildState, message: Message) -> None:
    child = ChildConversation()
    child.state = state
    if (state, type(message)) in CHILD_TRANSITIONS:
        child.receive(message)
    else:
        with pytest.raises(WireError, match="must not come in state"):
            child.receive(message)
        assert child.state is state


def test_every_state_can_be_reached() -> None:
    assert {ParentState.NEW, ParentState.ENDED, *PARENT_TRANSITIONS.values()} == set(ParentState)
    reached = {ChildState.GREETING, ChildState.PREPARING, *CHILD_TRANSITIONS.values(), *CHILD_STEPS.values()}
    assert reached == set(ChildState)


@pytest.mark.parametrize("state", list(PARENT_WAITS))
def test_each_wait_of_the_parent_ends(state: ParentState) -> None:
    seconds, what = PARENT_WAITS[state]
    parent = ParentConversation(100.0)
    parent.state = state
    assert parent.deadline() == 100.0 + seconds
    assert parent.overdue(100.0 + seconds - 0.1) == ""
    assert what in parent.overdue(100.0 + seconds)


def test_a_step_gets_its_time_anew_and_a_repeated_message_does_not() -> None:
    parent = ParentConversation(0.0)
    parent.receive(TO_PARENT[0], 5.0)
    assert parent.deadline() == 5.0 + PARENT_WAITS[ParentState.WELCOMED][0]
    parent.receive(hr.Unknown(what="Dance"), 50.0)
    assert parent.deadline() == 5.0 + PARENT_WAITS[ParentState.WELCOMED][0]
    parent.state = ParentState.MOVING
    assert parent.deadline() is None
    assert parent.overdue(1e9) == ""
    parent.end()
    assert parent.deadline() is None


def test_unknown_messages_are_answered_and_change_nothing() -> None:
    parent, child = ParentConversation(0.0), ChildConversation()
    for side in (lambda: parent.receive(hr.Unknown(what="Dance"), 0.0), lambda: child.receive(hr.Unknown(what="Dance"))):
        assert side() == hr.NotUnderstood(what="Dance")
    assert parent.receive(hr.NotUnderstood(what="x"), 0.0) is None
    assert child.receive(hr.NotUnderstood(what="x")) is None
    assert (parent.state, child.state) == (ParentState.NEW, ChildState.GREETING)


def test_a_refusal_carries_its_reason_at_any_time() -> None:
    for state in ChildState:
        child = ChildConversation()
        child.state = state
        with pytest.raises(TakeoverRefused, match="busy"):
            child.receive(hr.Refused(why="busy"))
    with pytest.raises(WireError):
        ChildConversation().receive(hr.Stats())
