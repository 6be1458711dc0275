"""Friendships that only one of two rosters has: counted for a source and for here, and compared."""

from collections.abc import Iterator
from contextlib import closing
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from xmppd.core.roster.item import value_of
from xmppd.core.roster.repair import problem_of
from xmppd.core.roster.subscription import State
from xmppd.migrate.merge import item_of
from xmppd.migrating.halves import BOTH, HERE, SOURCE, Halves, compare
from xmppd.migrating.verifying import Names

DOMAINS = {"x.example", "y.example"}
ANNA, BOB, CARL = "anna@x.example", "bob@y.example", "carl@x.example"


@pytest.fixture
def halves(tmp_path: Path) -> Iterator[Halves]:
    with closing(Halves(tmp_path / "halves.sqlite", DOMAINS)) as found:
        yield found


def roster(*items: tuple[str, State]) -> list[list[str]]:
    return [[contact, value_of(item_of(contact, state, groups=["g"]))] for contact, state in items]


def compared(halves: Halves, domains: set[str] = DOMAINS) -> tuple[int, int, list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    counts = compare(halves, domains, told.append)
    return counts["one-sided in the source"], counts["one-sided here"], told


NOT_GRANTED = "the contact does not grant the subscription"
NOT_WANTED = "the contact shows itself to who does not subscribe"


def test_friends_who_have_each_other_are_none(halves: Halves) -> None:
    halves.add(ANNA, roster((BOB, State.BOTH), (CARL, State.TO)), BOTH)
    halves.add(BOB, roster((ANNA, State.BOTH)), BOTH)
    halves.add(CARL, roster((ANNA, State.FROM)), BOTH)
    assert compared(halves) == (0, 0, [])


def test_both_have_the_same(halves: Halves) -> None:
    halves.add(ANNA, roster((BOB, State.BOTH), (CARL, State.FROM)), BOTH)
    halves.add(BOB, roster((ANNA, State.TO_IN)), SOURCE)
    halves.add(BOB, roster((ANNA, State.TO)), HERE)
    assert compared(halves) == (2, 2, [])


def test_what_is_only_in_one_of_them_is_told(halves: Halves) -> None:
    halves.add(ANNA, roster((BOB, State.BOTH), (CARL, State.FROM)), BOTH)
    halves.add(BOB, roster((ANNA, State.BOTH)), SOURCE)
    halves.add(BOB, roster((ANNA, State.TO)), HERE)
    halves.add(CARL, roster((ANNA, State.TO)), HERE)
    assert compared(halves) == (
        1,
        1,
        [
            {"account": ANNA, "what": "one-sided", "of": BOB, "source": None, "here": NOT_GRANTED},
            {"account": CARL, "what": "one-sided", "of": ANNA, "source": NOT_WANTED, "here": None},
        ],
    )


def test_the_side_that_is_missing_may_be_another(halves: Halves) -> None:
    halves.add(ANNA, roster((BOB, State.TO)), SOURCE)
    halves.add(BOB, roster((ANNA, State.FROM)), HERE)
    told = {"account": ANNA, "what": "one-sided", "of": BOB, "source": NOT_GRANTED, "here": NOT_WANTED}
    assert compared(halves) == (1, 1, [told])


def test_requests_and_others_domains_do_not_count(halves: Halves) -> None:
    halves.add(ANNA, roster((BOB, State.NONE_OUT), ("z@elsewhere.example", State.BOTH)), BOTH)
    halves.add(CARL, roster((BOB, State.BOTH)), BOTH)
    assert compared(halves, {"x.example"}) == (0, 0, [])


def test_many_are_no_matter(halves: Halves) -> None:
    names = [f"user{number}@x.example" for number in range(2000)]
    for number, name in enumerate(names):
        friends = [(names[(number + step) % 2000], State.BOTH) for step in (1, 2, -1, -2)]
        halves.add(name, roster(*friends), BOTH)
    halves.add(ANNA, roster((names[5], State.TO)), SOURCE)
    assert compared(halves, {"x.example"})[:2] == (1, 0)


names = st.sampled_from([ANNA, BOB, CARL, "dora@z.example"])
rosters = st.dictionaries(names, st.dictionaries(names, st.sampled_from(State), max_size=3), max_size=4).map(
    lambda found: {name: {it: found[name][it] for it in found[name] if it != name} for name in found}
)


@given(rosters, rosters)
def test_each_subscription_is_looked_at_by_itself(
    source: dict[str, dict[str, State]], here: dict[str, dict[str, State]]
) -> None:
    with TemporaryDirectory() as folder, closing(Halves(Path(folder) / "halves", DOMAINS)) as halves:
        for account in source.keys() | here.keys():
            one, other = (it.get(account, {}) for it in (source, here))
            if one == other:
                halves.add(account, roster(*one.items()), BOTH)
            else:
                halves.add(account, roster(*one.items()), SOURCE)
                halves.add(account, roster(*other.items()), HERE)
        one_sided, others, told = [0, 0], 0, list[tuple[Any, ...]]()
        for asker, granter in permutations([ANNA, BOB, CARL], 2):
            problems = []
            for number, it in enumerate((source, here)):
                asks = it.get(asker, {}).get(granter, State.NONE).is_following
                grants = it.get(granter, {}).get(asker, State.NONE).is_followed
                problems.append(problem_of("to" if asks else "", "from" if grants else "") or None)
                one_sided[number] += asks != grants
            if problems[0] != problems[1]:
                others += 1
                told.append((asker, granter, *problems))
        found: list[dict[str, Any]] = []
        counts = compare(halves, DOMAINS, found.append)
        assert [counts["one-sided in the source"], counts["one-sided here"]] == one_sided
        assert counts["one-sided in only one"] == others
        assert sorted((it["account"], it["of"], it["source"], it["here"]) for it in found) == sorted(told)


def test_names_that_were_not_there_are_found(tmp_path: Path) -> None:
    with Names(tmp_path) as names:
        names.add([ANNA, BOB])
        names.add([BOB])
        assert names.missing([ANNA, CARL, BOB, "dora@x.example"]) == [CARL, "dora@x.example"]
