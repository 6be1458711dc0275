"""What is remembered of what was stored while a node was cut off."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from xmppd.cluster import hints
from xmppd.cluster.hints import Hints, Told
from xmppd.cluster.records import Hint
from xmppd.cluster.whereabouts import Place
from xmppd.errors import StanzaError

FLUSHING = "flushing@x"
HERE = [f"user{number}@x" for number in range(250)]


@functools.cache
def member_named(name: str) -> Any:
    return type("Named", (), {"name": name})()


class World:
    """One node with a mesh in which those of `places` are found, and willing sessions of everybody in
    HERE.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.told: list[tuple[str, str]] = []
        self.letters: list[Told] = []
        self.looked: list[str] = []
        self.places: list[Place] = []
        self.present: tuple[int, ...] = ()
        self.members: dict[str, Any] = {}
        self.ended: set[int] = set()
        self.meshed = self.mesh()
        self.later: list[tuple[float, Callable[[], None]]] = []
        available = [SimpleNamespace(priority=0)]
        willing = SimpleNamespace(available=available, open_to=available)
        flushing = SimpleNamespace(available=[SimpleNamespace(priority=5)], open_to=[])
        self.sessions: Any = SimpleNamespace(
            accounts=dict.fromkeys(HERE, willing) | {FLUSHING: flushing}, by_full={}
        )
        self.hints = Hints(
            self.meshed,
            self.sessions,
            self.looked.append,
            lambda: self.seconds,
            self._call_later,
            lambda: 0.0,
        )

    def mesh(self) -> Any:
        return SimpleNamespace(
            places=lambda account: self.places,
            member=lambda node: member_named(f"node {node}"),
            send=lambda to, record, *_: self.told.append((to.name, record.account)),
            post=self._post,
            quiet=frozenset(),
            members=self.members,
            has_ended=lambda incarnation: incarnation in self.ended,
            present=lambda: [member_named(f"node {number}") for number in self.present],
        )

    def _post(self, to: Any, record: Hint, size: int, letter: Told) -> None:
        self.told.append((to.name, record.account))
        self.letters.append(letter)

    def _call_later(self, seconds: float, do: Callable[[], None]) -> None:
        self.later.append((seconds, do))

    def go_on(self) -> None:
        while self.later:
            self.later.pop(0)[1]()


def member(incarnation: int = 1, *, was_silent: bool = True) -> Any:
    return SimpleNamespace(name="B", incarnation=incarnation, was_silent=was_silent)


@pytest.mark.parametrize(("was_silent", "told"), [(True, [("B", "bob@x")]), (False, [])])
def test_nobody_is_forgotten_while_a_node_is_cut_off(was_silent: bool, told: list[Any]) -> None:
    world = World()
    assert [*world.hints.lost(member(was_silent=was_silent))] == []
    world.hints.kept("bob@x")
    world.seconds = hints.STORED_SECONDS + 100
    world.hints.kept("carol@x")
    world.hints.is_open(member(), "bob@x")
    assert world.told == told


def test_who_is_remembered_is_forgotten_after_the_node_was_met() -> None:
    world = World()
    assert [*world.hints.lost(member())] == []
    world.hints.kept("bob@x")
    world.seconds = hints.STORED_SECONDS + 100
    world.hints.joined(member())
    world.hints.is_open(member(), "bob@x")
    assert world.told == []


def test_a_node_that_never_comes_back_is_not_waited_for() -> None:
    world = World()
    assert [*world.hints.lost(member())] == []
    world.hints.kept("bob@x")
    world.seconds = hints.CUT_SECONDS + 1
    world.hints.kept("carol@x")
    world.hints.is_open(member(), "bob@x")
    assert world.told == []


def test_more_than_can_be_remembered_makes_the_other_node_look_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hints, "STORED", 2)
    world = World()
    assert [*world.hints.lost(member())] == []
    for name in ("a@x", "b@x", "c@x"):
        world.hints.kept(name)
    world.hints.joined(member())
    assert world.told == [("B", "")]
    world.told.clear()
    world.hints.joined(member())
    assert world.told == []


def test_all_are_looked_at_some_at_a_time() -> None:
    world = World()
    world.hints.take(member(), Hint(""))
    assert world.looked == HERE[: hints.LOOKS]
    assert [seconds for seconds, _ in world.later] == [hints.LOOKS_SECONDS]
    world.go_on()
    assert world.looked == [*HERE, FLUSHING]


@pytest.mark.parametrize(("incarnation", "looked"), [(1, []), (2, [*HERE, FLUSHING])])
def test_what_a_node_stored_before_it_died_while_it_was_cut_off_is_looked_for(
    incarnation: int, looked: list[str]
) -> None:
    world = World()
    assert [*world.hints.lost(member(1))] == []
    world.hints.joined(member(incarnation))
    world.go_on()
    assert world.looked == looked


def test_who_came_just_before_a_node_was_lost_is_looked_at_at_once_and_once_more() -> None:
    """Some at a time."""
    world = World()
    ages = {HERE[0]: hints.YOUNG_SECONDS + 1, **dict.fromkeys(HERE[1:], 1.0)}
    world.sessions.by_full = {
        account: SimpleNamespace(account=account, since=-age) for account, age in ages.items()
    }
    assert [*world.hints.lost(member())] == [None] * 3
    assert world.looked == HERE[1 : 1 + hints.LOOKS]
    world.looked.clear()
    assert [seconds for seconds, _ in world.later] == [hints.LOOKS_SECONDS, hints.LOOK_SECONDS]
    world.later.pop(0)
    world.go_on()
    assert world.looked == HERE[1:]


@pytest.mark.parametrize(
    ("priorities", "told", "looked"),
    [
        ((0, 0, None), ["node 1", "node 2"], True),
        ((-1,), [], True),
        ((5, 0, 5), ["node 1", "node 3"], False),
    ],
)
@pytest.mark.asyncio
async def test_all_are_told_that_messages_go_to(
    priorities: tuple[int | None, ...], told: list[str], looked: bool
) -> None:
    """And waited for: until a node has heard, or is lost."""
    world = World()
    world.places = [Place(node, "r", 1, priority) for node, priority in enumerate(priorities, 1)]
    heard = world.hints.kept(HERE[0])
    assert world.told == [(name, HERE[0]) for name in told]
    assert world.looked == ([HERE[0]] if looked else [])
    assert (heard is not None) == bool(told)
    for number, letter in enumerate(world.letters):
        assert heard is not None and not heard.done()
        world.places = []
        letter.missed(StanzaError("service-unavailable")) if number % 2 else letter.settled()
    assert heard is None or heard.done()


@pytest.mark.asyncio
async def test_where_a_node_is_lost_those_are_told_that_its_messages_go_to() -> None:
    """Before these go there: they would overtake what is stored."""
    world = World()
    world.places = [Place(1, "r", 1, 5), Place(2, "r", 1, 0)]
    heard = world.hints.kept("bob@x")
    assert world.told == [("node 1", "bob@x")] and heard is not None
    world.places = world.places[1:]
    world.letters[0].missed(StanzaError("service-unavailable"))
    assert world.told[1:] == [("node 2", "bob@x")] and not heard.done()
    world.letters[1].settled()
    assert heard.done()


@pytest.mark.asyncio
async def test_who_takes_messages_while_another_is_given_what_is_stored_is_told_as_well() -> None:
    world = World()
    world.places = [Place(1, "r", 1, 0)]
    world.hints.kept(FLUSHING)
    assert world.told == [("node 1", FLUSHING)]
    assert world.looked == [FLUSHING]


@pytest.mark.asyncio
async def test_who_is_next_is_told_of_what_was_stored_for_the_one_before() -> None:
    """It was stored behind what that one was being given, and newer messages go to the next one."""
    world = World()
    world.places = [Place(1, "r", 1, 5), Place(2, "r", 1, 0)]
    world.hints.kept("bob@x")
    world.places = world.places[1:]
    world.hints.ceded("carol@x")
    world.hints.ceded("bob@x")
    assert world.told == [("node 1", "bob@x"), ("node 2", "bob@x")]
    world.seconds += hints.STORED_SECONDS
    world.hints.ceded("bob@x")
    assert len(world.told) == 2


@pytest.mark.asyncio
async def test_who_something_was_stored_for_is_told_whoever_messages_go_to() -> None:
    world = World()
    world.places = [Place(1, "first", 1, 5), Place(2, "game", 1, 0), Place(3, "other", 1, 0)]
    world.hints.kept("bob@x", "game")
    assert world.told == [("node 1", "bob@x"), ("node 2", "bob@x")]
    world.sessions.by_full["bob@x/here"] = SimpleNamespace()
    world.hints.kept("bob@x", "here")
    assert world.told[2:] == [("node 1", "bob@x")]
    assert world.looked == ["bob@x"]


@pytest.mark.asyncio
async def test_while_a_node_is_cut_off_that_others_may_reach_all_are_told() -> None:
    """They pass it on. Those that are told by them tell those alone that messages go to."""
    world = World()
    world.places, world.present = [Place(2, "r", 1, 0)], (1, 2)
    world.hints.is_listed = lambda name, incarnation: (name, incarnation) == ("B", 7)
    assert [*world.hints.lost(member(6))] == []
    world.hints.kept("bob@x")
    assert world.told == [("node 2", "bob@x")], "it is not on the list: nobody reaches it"
    assert [*world.hints.lost(member(7))] == []
    heard = world.hints.kept("bob@x")
    assert world.told[1:] == [("node 1", "bob@x"), ("node 2", "bob@x"), ("node 2", "bob@x")]
    world.letters[-1].settled()
    assert heard is not None and heard.done(), "nobody waits for those who pass it on"
    world.hints.take(member_named("node 1"), Hint("carol@x"))
    assert world.told[4:] == [("node 2", "carol@x")]
    world.hints.joined(member(7))
    world.hints.kept("bob@x")
    assert world.told[5:] == [("node 2", "bob@x")]


@pytest.mark.asyncio
async def test_who_is_not_heard_may_be_reached_by_others() -> None:
    world = World()
    world.present, world.meshed.quiet = (1, 2, 3), {member_named("node 2")}
    world.hints.kept("bob@x")
    assert world.told == [("node 1", "bob@x"), ("node 3", "bob@x")]


def test_a_node_that_was_never_met_may_be_reached_by_others() -> None:
    """It stood still when this one began: what is stored here for its sessions is passed on, though this one
    may be gone before it is met.
    """
    world = World()
    world.present = (1, 2)
    world.hints.listed("B", 7)
    world.hints.kept("bob@x")
    assert world.told == [("node 1", "bob@x"), ("node 2", "bob@x")]
    world.seconds = hints.STORED_SECONDS + 100
    world.hints.listed("B", 7)
    world.hints.is_open(member(7), "bob@x")
    assert world.told[2:] == [("B", "bob@x")]
    world.members["B"] = member(7)
    world.hints.joined(member(7))
    world.hints.listed("B", 7)
    world.hints.kept("bob@x")
    assert len(world.told) == 3


def test_another_life_of_a_node_was_not_met() -> None:
    world = World()
    world.present, world.members["B"] = (1,), member(7)
    world.hints.listed("B", 8)
    world.hints.kept("bob@x")
    assert world.told == [("node 1", "bob@x")]


def test_a_life_of_a_node_that_is_over_is_not_waited_for() -> None:
    """One that was killed is on the list for a while."""
    world = World()
    world.present, world.ended = (1,), {7}
    world.hints.listed("B", 7)
    world.hints.kept("bob@x")
    assert world.told == []


def test_a_node_that_is_never_met_is_forgotten_when_it_left_the_list() -> None:
    world = World()
    world.hints.listed("B", 7)
    world.hints.kept("bob@x")
    world.seconds = hints.UNMET_SECONDS + 1
    world.hints.kept("carol@x")
    world.hints.is_open(member(7), "bob@x")
    assert world.told == []
