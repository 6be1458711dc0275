"""Who is told when sessions come, change and go, here or on another node."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from xmppd.cluster.mesh import Mesh, Met
from xmppd.cluster.places import Places
from xmppd.cluster.records import Gone, Place
from xmppd.core.ids import HybridClock
from xmppd.core.output import Cork
from xmppd.core.sessions import Sessions

BOB = "bob@localhost"


class Node:
    """A node that is connected with another one; `ceded` are those of which a session left its messages to
    others.
    """

    def __init__(self) -> None:
        sessions = Sessions(Cork(lambda do: do()), lambda: 0.0)
        self.mesh = Mesh(
            "here:1",
            1,
            sessions,
            lambda outlet: None,
            lambda: 0.0,
            lambda seconds, do: None,
            HybridClock(lambda: 0.0),
        )
        self.ceded: list[str] = []
        nothing: Any = lambda *_: None  # noqa: E731
        self.places = Places(
            self.mesh,
            sessions,
            moved=nothing,
            came=nothing,
            is_open=nothing,
            ceded=self.ceded.append,
            went=nothing,
            appeared=nothing,
            left=nothing,
            end=nothing,
            lost_all=nothing,
        )
        carrier: Any = SimpleNamespace(write=nothing, close=nothing)
        self.member = self.mesh.met(Met("there:1", 1, 1, 0, 0.0), carrier)

    def tell(self, priority: int | None, number: int = 1) -> None:
        """The other node has a session of bob."""
        self.places.take(self.member, Place(BOB, "game", priority, number, 0))


@pytest.mark.parametrize(
    ("before", "after", "is_ceded"),
    [(None, 5, False), (0, 5, False), (5, 5, False), (5, 0, True), (5, -1, True), (5, None, True)],
)
def test_messages_are_left_to_others_by_who_is_less_than_before(
    before: int | None, after: int | None, is_ceded: bool
) -> None:
    node = Node()
    node.tell(before)
    assert node.ceded == []
    node.tell(after)
    assert node.ceded == [BOB] * is_ceded
    session: Any = SimpleNamespace(
        account=BOB,
        resource="here",
        full=f"{BOB}/here",
        login=SimpleNamespace(agent=None),
        copies_since=0,
        is_over=False,
        presence=None,
    )
    node.ceded.clear()
    node.places.bound(session)
    for priority in (before, after):
        session.presence, session.priority = None if priority is None else "some", priority or 0
        node.places.shifted(session)
    assert node.ceded == [BOB] * is_ceded


def test_messages_are_left_to_others_by_who_ends() -> None:
    node = Node()
    node.tell(5)
    node.places.take_gone(node.member, Gone(BOB, "game", 2))
    assert node.ceded == [], "another one ended"
    node.places.take_gone(node.member, Gone(BOB, "game", 1))
    assert node.ceded == [BOB]
