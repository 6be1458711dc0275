"""The judge of `scripts/bench/kill --archived`: what each message has to look like to be lost, twice or
overtaken, and what is excused only with its own evidence.
"""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "scripts" / "bench"
HERE, THERE = 7000, 7010
ONE, TWO = "a to b 1", "a to b 2"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """The modules of phones and of their judge."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module("phones"), importlib.import_module("verdicts")
    for name in ("phones", "ledger", "verdicts", "victim", "stream"):
        sys.modules.pop(name, None)


@pytest.fixture
def judged(bench: tuple[Any, Any]) -> Callable[..., Any]:
    """What is said of messages from a to b: `sent` as (text, connection of a), 0 of which is HERE,
    and 1 a later one; `got` as (text, id) or (text, id, how), with "early" besides.
    """
    phones, verdicts = bench

    def judged(
        sent: Any,
        got: Any,
        *,
        acked: tuple[str, ...] = (),
        to: str = "b@localhost",
        port: int = THERE,
        how: str = "bound",
        sought: str = "",
        killed: int = HERE,
        noticed: float | None = None,
    ) -> Any:
        a, b = (phones.Phone(name, [], random.Random(1), asks=False) for name in "ab")
        first = phones.Life(HERE, 1.0, "s1", "bound")
        second = phones.Life(port, 20.0, "s2", how, sought=sought)
        for text, connection in sent:
            life = (first, second)[connection]
            a.said.setdefault(text, []).append(phones.Sent(life.began + 1, life, to))
        a.lives, a.acked = [first, second], dict.fromkeys(acked, 30.0)
        a.counts, b.lives = a.counts, [phones.Life(THERE, 1.0)]
        for text, id, *more in got:
            way = next((one for one in more if one != "early"), "live")
            one = phones.Got(25.0, b.lives[0], id, way, is_new=True, is_early="early" in more)
            b.came.setdefault(text, []).append(one)
            b.got.append((text, one))
        kills = [verdicts.Kill(15.0, killed, {} if noticed is None else {port: noticed})]
        verdict = verdicts.judge([a, b], kills)
        for text, _ in (*verdict.wrong, *verdict.excused):
            assert verdicts.about(text, [a, b], kills, 0.0)[0].startswith(text)
        return verdict

    return judged


SAID = [(ONE, 0), (TWO, 0)]


def test_what_came_once_and_in_order_is_right(judged: Callable[..., Any]) -> None:
    verdict = judged(SAID, [(ONE, "x"), (TWO, "y")], acked=(ONE, TWO))
    assert verdict.wrong == verdict.excused == []


def test_what_was_acknowledged_and_has_not_come_is_lost(judged: Callable[..., Any]) -> None:
    assert judged(SAID, [(ONE, "x")], acked=(ONE, TWO)).wrong == [(TWO, "lost")]
    assert judged(SAID, [(ONE, "x")], acked=(ONE,)).wrong == []


def test_what_nobody_sent_is_wrong(judged: Callable[..., Any]) -> None:
    for text in ("a to b 3", "b to a 1", "hm"):
        assert judged(SAID, [(text, "x")]).wrong == [(text, "b was given it")]


AGAIN = [*SAID, (ONE, 1), (TWO, 1)]
BOTH = [(ONE, "x"), (TWO, "y"), (ONE, "x2"), (TWO, "y2")]


def test_a_copy_of_who_could_not_know_is_its_own_and_says_nothing_of_the_order(
    judged: Callable[..., Any], bench: tuple[Any, Any]
) -> None:
    verdict = judged(AGAIN, BOTH, acked=(ONE, TWO), noticed=21.0)
    assert verdict.wrong == []
    assert verdict.excused == [(ONE, bench[1].ITS_OWN), (TWO, bench[1].ITS_OWN)]


@pytest.mark.parametrize(
    "changes",
    [
        {"noticed": 19.0},  # it was known
        {},  # it was never known there: who comes behind a loss is told
        {"noticed": 21.0, "sought": "s1"},  # it named its session
        {"noticed": 21.0, "how": "resumed"},
        {"noticed": 21.0, "killed": THERE},  # its server was there
        {"noticed": 21.0, "sent": SAID},  # it was not sent again
        {"noticed": 21.0, "sent": [*SAID, (TWO, 1)]},
    ],
)
def test_any_other_copy_is_the_servers_doing(judged: Callable[..., Any], changes: dict[str, Any]) -> None:
    sent = changes.pop("sent", AGAIN)
    wrong = judged(sent, BOTH, acked=(ONE, TWO), **changes).wrong
    assert (ONE, "twice") in wrong and (ONE, "overtaken by 2 to 2") in wrong


def test_one_copy_more_than_were_sent_is_the_servers_doing(judged: Callable[..., Any]) -> None:
    got = [*BOTH, (TWO, "y3")]
    assert judged(AGAIN, got, acked=(ONE, TWO), noticed=21.0).wrong == [(TWO, "twice")]


def test_what_came_to_a_resource_before_it_was_available_overtakes_nothing(
    judged: Callable[..., Any], bench: tuple[Any, Any]
) -> None:
    got = [(TWO, "y", "early"), (ONE, "x", "stored")]
    verdict = judged(SAID, got, acked=(ONE, TWO), to="b@localhost/phone")
    assert verdict.wrong == [] and verdict.excused == [(ONE, bench[1].EARLY)]


@pytest.mark.parametrize(
    ("to", "got"),
    [
        ("b@localhost", [(TWO, "y", "early"), (ONE, "x", "stored")]),
        ("b@localhost/phone", [(TWO, "y"), (ONE, "x", "stored")]),
        ("b@localhost/phone", [(TWO, "y", "early", "stored"), (ONE, "x", "stored")]),
        ("b@localhost/phone", [(TWO, "y", "early", "in the archive"), (ONE, "x", "stored")]),
        ("b@localhost/phone", [("a to b 3", "z"), (TWO, "y", "early"), (ONE, "x", "stored")]),
    ],
)
def test_anything_else_is_overtaken(judged: Callable[..., Any], to: str, got: Any) -> None:
    sent = [*SAID, ("a to b 3", 0)]
    assert (ONE, "overtaken") in [(text, what.split()[0]) for text, what in judged(sent, got, to=to).wrong]


@pytest.mark.parametrize(
    ("killed", "came", "is_excused"),
    [
        (3.5, 4.0, True),
        (4.5, 5.0, False),  # it had a second to say that it has it
        (2.5, 4.0, False),  # it was killed before
        (3.5, 3.2, False),  # it came again before the kill
        (None, 4.0, False),
    ],
)
def test_a_copy_that_is_not_stamped(
    bench: tuple[Any, Any], killed: float | None, came: float, is_excused: bool
) -> None:
    phones, verdicts = bench
    a, b = (phones.Phone(name, [], random.Random(1), asks=False) for name in "ab")
    here, there = phones.Life(HERE, 1.0), phones.Life(THERE, 3.1)
    first = phones.Got(3.0, here, "x", "live")
    b.came[ONE] = [first, phones.Got(came, there, "x", "live", is_new=False)]
    b.got = [(ONE, first)]
    a.said[ONE] = [phones.Sent(2.0, here, "b@localhost")]
    verdict = verdicts.judge([a, b], [] if killed is None else [verdicts.Kill(killed, HERE)])
    assert verdict.excused == ([(ONE, verdicts.UNTAKEN)] if is_excused else [])
    assert verdict.wrong == ([] if is_excused else [(ONE, "again without a stamp")])
    b.came[ONE][1] = b.came[ONE][1]._replace(how="stored")
    assert verdicts.judge([a, b], []).wrong == []
