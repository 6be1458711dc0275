"""Subscriptions, cell by cell against tables typed from RFC 6121 appendix A, and as dialogues of two."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmppd.core.roster.subscription import Inbound, Kind, Outbound, State, inbound, outbound

NAMES = {
    "None": State.NONE,
    "None + Pending Out": State.NONE_OUT,
    "None + Pending In": State.NONE_IN,
    "None + Pending Out+In": State.NONE_OUT_IN,
    "To": State.TO,
    "To + Pending In": State.TO_IN,
    "From": State.FROM,
    "From + Pending Out": State.FROM_OUT,
    "Both": State.BOTH,
}

OUTBOUND = """
subscribe
None                  | MUST     | None + Pending Out
None + Pending Out    | MUST     | no state change
None + Pending In     | MUST     | None + Pending Out+In
None + Pending Out+In | MUST     | no state change
To                    | MUST     | no state change
To + Pending In       | MUST     | no state change
From                  | MUST     | From + Pending Out
From + Pending Out    | MUST     | no state change
Both                  | MUST     | no state change
unsubscribe
None                  | MUST     | no state change
None + Pending Out    | MUST     | None
None + Pending In     | MUST     | no state change
None + Pending Out+In | MUST     | None + Pending In
To                    | MUST     | None
To + Pending In       | MUST     | None + Pending In
From                  | MUST     | no state change
From + Pending Out    | MUST     | From
Both                  | MUST     | From
subscribed
None                  | MUST NOT | no state change
None + Pending Out    | MUST NOT | no state change
None + Pending In     | MUST     | From
None + Pending Out+In | MUST     | From + Pending Out
To                    | MUST NOT | no state change
To + Pending In       | MUST     | Both
From                  | MUST NOT | no state change
From + Pending Out    | MUST NOT | no state change
Both                  | MUST NOT | no state change
unsubscribed
None                  | MUST NOT | no state change
None + Pending Out    | MUST NOT | no state change
None + Pending In     | MUST     | None
None + Pending Out+In | MUST     | None + Pending Out
To                    | MUST NOT | no state change
To + Pending In       | MUST     | To
From                  | MUST     | None
From + Pending Out    | MUST     | None + Pending Out
Both                  | MUST     | To
"""

INBOUND = """
subscribe
None                  | MUST     | None + Pending In
None + Pending Out    | MUST     | None + Pending Out+In
None + Pending In     | MUST NOT | no state change
None + Pending Out+In | MUST NOT | no state change
To                    | MUST     | To + Pending In
To + Pending In       | MUST NOT | no state change
From                  | MUST NOT | no state change
From + Pending Out    | MUST NOT | no state change
Both                  | MUST NOT | no state change
unsubscribe
None                  | MUST NOT | no state change
None + Pending Out    | MUST NOT | no state change
None + Pending In     | MUST     | None
None + Pending Out+In | MUST     | None + Pending Out
To                    | MUST NOT | no state change
To + Pending In       | MUST     | To
From                  | MUST     | None
From + Pending Out    | MUST     | None + Pending Out
Both                  | MUST     | To
subscribed
None                  | MUST NOT | no state change
None + Pending Out    | MUST     | To
None + Pending In     | MUST NOT | no state change
None + Pending Out+In | MUST     | To + Pending In
To                    | MUST NOT | no state change
To + Pending In       | MUST NOT | no state change
From                  | MUST NOT | no state change
From + Pending Out    | MUST     | Both
Both                  | MUST NOT | no state change
unsubscribed
None                  | MUST NOT | no state change
None + Pending Out    | MUST     | None
None + Pending In     | MUST NOT | no state change
None + Pending Out+In | MUST     | None + Pending In
To                    | MUST     | None
To + Pending In       | MUST     | None + Pending In
From                  | MUST NOT | no state change
From + Pending Out    | MUST     | From
Both                  | MUST     | From
"""

Cell = tuple[Kind, State, bool, State]


def cells(text: str) -> list[Cell]:
    found: list[Cell] = []
    kind = ""
    for line in text.strip().splitlines():
        if "|" not in line:
            kind = line
            continue
        old, passes, new = (part.strip() for part in line.split("|"))
        state = NAMES[old]
        found.append((kind, state, passes == "MUST", state if new == "no state change" else NAMES[new]))
    assert len(found) == 36
    return found


@pytest.mark.parametrize(("kind", "state", "route", "after"), cells(OUTBOUND))
def test_outbound(kind: Kind, state: State, route: bool, after: State) -> None:
    assert outbound(state, kind)[:2] == (route, after)


@pytest.mark.parametrize(("kind", "state", "deliver", "after"), cells(INBOUND))
def test_inbound(kind: Kind, state: State, deliver: bool, after: State) -> None:
    assert inbound(state, kind)[:2] == (deliver, after)


def test_states_are_made_of_their_parts() -> None:
    parts = {
        name: (state.subscription, state.ask, state.pending_in, state.is_following, state.is_followed)
        for name, state in NAMES.items()
    }
    assert parts == {
        "None": ("none", False, False, False, False),
        "None + Pending Out": ("none", True, False, False, False),
        "None + Pending In": ("none", False, True, False, False),
        "None + Pending Out+In": ("none", True, True, False, False),
        "To": ("to", False, False, True, False),
        "To + Pending In": ("to", False, True, True, False),
        "From": ("from", False, False, False, True),
        "From + Pending Out": ("from", True, False, False, True),
        "Both": ("both", False, False, True, True),
    }
    assert all(State.of(state.subscription, state.ask, state.pending_in) is state for state in State)


def test_a_request_for_what_is_granted_does_not_count() -> None:
    assert State.of("to", True, True) is State.TO_IN
    assert State.of("from", True, True) is State.FROM_OUT
    assert State.of("both", True, True) is State.BOTH


# pre-approval (RFC 6121 3.4)

UNGRANTED = [State.NONE, State.NONE_OUT, State.TO]
ASKED = [State.NONE_IN, State.NONE_OUT_IN, State.TO_IN]
GRANTED = [State.FROM, State.FROM_OUT, State.BOTH]


@pytest.mark.parametrize("state", UNGRANTED)
def test_approval_without_request_is_noted_and_not_routed(state: State) -> None:
    assert outbound(state, "subscribed") == Outbound(route=False, state=state, approved=True)


@pytest.mark.parametrize("state", [*ASKED, *GRANTED])
def test_approval_of_a_request_is_no_pre_approval(state: State) -> None:
    assert not outbound(state, "subscribed").approved


@pytest.mark.parametrize("state", State)
def test_cancelling_takes_a_pre_approval_back(state: State) -> None:
    assert not outbound(state, "unsubscribed", approved=True).approved
    assert outbound(state, "subscribe", approved=True).approved
    assert outbound(state, "unsubscribe", approved=True).approved


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (State.NONE, State.FROM),
        (State.NONE_OUT, State.FROM_OUT),
        (State.NONE_IN, State.FROM),
        (State.NONE_OUT_IN, State.FROM_OUT),
        (State.TO, State.BOTH),
        (State.TO_IN, State.BOTH),
    ],
)
def test_pre_approved_request_is_answered_and_not_delivered(before: State, after: State) -> None:
    assert inbound(before, "subscribe", approved=True) == Inbound(False, after, "subscribed")


@pytest.mark.parametrize("state", GRANTED)
@pytest.mark.parametrize("approved", [False, True])
def test_request_for_what_is_granted_is_answered_again(state: State, approved: bool) -> None:
    assert inbound(state, "subscribe", approved=approved) == Inbound(False, state, "subscribed")


@pytest.mark.parametrize("state", [*UNGRANTED, *ASKED])
def test_other_requests_wait_for_the_owner(state: State) -> None:
    assert inbound(state, "subscribe").reply is None


@pytest.mark.parametrize("kind", ["unsubscribe", "subscribed", "unsubscribed"])
@pytest.mark.parametrize("state", State)
def test_only_requests_are_answered(state: State, kind: Kind) -> None:
    assert inbound(state, kind, approved=True) == inbound(state, kind)
    assert inbound(state, kind).reply is None


# two contacts

KINDS = st.sampled_from(["subscribe", "unsubscribe", "subscribed", "unsubscribed"])
STEPS = st.lists(st.tuples(st.sampled_from([0, 1]), KINDS), max_size=30)


class Pair:
    """Two contacts whose stanzas arrive at once, in order."""

    def __init__(self) -> None:
        self.states = [State.NONE, State.NONE]
        self.approved = [False, False]

    def send(self, who: int, kind: Kind) -> None:
        out = outbound(self.states[who], kind, approved=self.approved[who])
        self.states[who], self.approved[who] = out.state, out.approved
        if out.route:
            self.receive(1 - who, kind)

    def receive(self, who: int, kind: Kind) -> None:
        got = inbound(self.states[who], kind, approved=self.approved[who])
        self.states[who] = got.state
        if got.reply is not None:
            self.receive(1 - who, got.reply)

    def check(self) -> None:
        for mine, theirs in (self.states, self.states[::-1]):
            assert mine.is_following == theirs.is_followed
            assert mine.ask == theirs.pending_in


@given(STEPS)
def test_both_ends_agree(steps: list[tuple[int, Kind]]) -> None:
    pair = Pair()
    for who, kind in steps:
        pair.send(who, kind)
        pair.check()


@given(STEPS, st.tuples(st.sampled_from([0, 1]), KINDS))
def test_a_repeat_changes_nothing(steps: list[tuple[int, Kind]], last: tuple[int, Kind]) -> None:
    pair = Pair()
    for who, kind in steps:
        pair.send(who, kind)
    who, kind = last
    is_routed = outbound(pair.states[who], kind).route
    pair.send(who, kind)
    before = list(pair.states), list(pair.approved)
    if is_routed:
        pair.receive(1 - who, kind)  # the same stanza once more on the wire
        assert (pair.states, pair.approved) == before
    pair.send(who, kind)
    assert (pair.states, pair.approved) == before


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("approved", [False, True])
@pytest.mark.parametrize("kind", ["subscribe", "unsubscribe", "subscribed", "unsubscribed"])
def test_the_second_time_is_harmless(state: State, approved: bool, kind: Kind) -> None:
    sent = outbound(state, kind, approved=approved)
    assert outbound(sent.state, kind, approved=sent.approved)[1:] == sent[1:]
    got = inbound(state, kind, approved=approved)
    assert inbound(got.state, kind, approved=approved).state is got.state


@given(STEPS)
def test_a_lost_request_is_mended_by_asking_again(steps: list[tuple[int, Kind]]) -> None:
    pair = Pair()
    for who, kind in steps:
        pair.send(who, kind)
    lost = outbound(pair.states[0], "subscribe", approved=pair.approved[0])
    pair.states[0] = lost.state  # and the other half never happened
    pair.send(0, "subscribe")
    pair.check()


def test_nobody_grants_what_was_not_asked_for() -> None:
    pair = Pair()
    pair.send(0, "subscribed")
    assert pair.states == [State.NONE, State.NONE]
    pair.receive(1, "subscribed")  # a forged one
    assert pair.states == [State.NONE, State.NONE]


def test_friendship_from_start_to_end() -> None:
    pair = Pair()
    story = [
        (0, "subscribe", State.NONE_OUT, State.NONE_IN),
        (1, "subscribed", State.TO, State.FROM),
        (1, "subscribe", State.TO_IN, State.FROM_OUT),
        (0, "subscribed", State.BOTH, State.BOTH),
        (0, "unsubscribe", State.FROM, State.TO),
        (0, "unsubscribed", State.NONE, State.NONE),
    ]
    for who, kind, mine, theirs in story:
        pair.send(who, kind)
        assert pair.states == [mine, theirs]
