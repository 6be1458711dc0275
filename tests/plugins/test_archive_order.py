"""Who has seen one message of an archive has seen all before it, whatever ends first and on whatever node."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection, Sequence

import pytest
from archivemodel import MESSAGE, RULES, Model

from plugins.archive.elsewhere import ASK, AWAY, END, GO, HOLD, KEEP, KNOWN, LATE
from plugins.archive.ids import Pool, bound
from plugins.archive.order import STUCK_SECONDS, Order
from plugins.archive.ordered import PAGE_SECONDS
from plugins.archive.under_way import Entry, Way
from xmppd.core.ids import HybridClock

SEEDS = range(4)
FORMS = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2)]


@pytest.mark.parametrize(("nodes", "devices"), FORMS)
def test_every_device_finds_every_message(nodes: int, devices: int) -> None:
    said: Counter[str] = Counter()
    for seed in SEEDS:
        model = Model(seed, nodes=nodes, devices=devices)
        assert model.run() == 0, f"{nodes=} {devices=} {seed=}"
        said += model.said
    if nodes > 1:
        assert all(said[verb] > 5 for verb in (HOLD, AWAY, GO, KNOWN)), said


@pytest.mark.parametrize(("nodes", "devices"), FORMS[2:])
def test_every_device_finds_what_was_acknowledged_when_nodes_are_lost(nodes: int, devices: int) -> None:
    killed = 0
    for seed in SEEDS:
        model = Model(seed, nodes=nodes, devices=devices, kills=True)
        assert model.run() == 0, f"{nodes=} {devices=} {seed=}"
        assert len(model.acknowledged) > 300
        killed += model.killed
    assert killed > 2 * len(SEEDS)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_without_a_rule_some_do_not(rule: str) -> None:
    models = (
        Model(seed, nodes=nodes, devices=devices, rules=RULES - {rule})
        for seed in range(20)
        for nodes, devices in ((2, 1), (2, 2))
    )
    assert any(model.run() > 0 for model in models)


class Nodes:
    """What one node knows of others, and has told them."""

    def __init__(self, *, is_shared: bool = True) -> None:
        self.is_shared = is_shared
        self.told: list[tuple[str, str, str, bytes, bytes]] = []
        self.here: dict[str, list[object]] = {}
        self.there: dict[str, list[str]] = {}

    def others(self) -> Collection[str]:
        return ("b",)

    def of(self, account: str) -> Collection[str]:
        return self.there.get(account, ())

    def sessions(self, account: str) -> Sequence[object]:
        return self.here.get(account, ())

    def tell(self, node: str, verb: str, account: str, id: bytes, other: bytes) -> None:
        self.told.append((node, verb, account, id, other))

    def verbs(self) -> list[str]:
        verbs = [verb for _, verb, *_ in self.told]
        self.told.clear()
        return verbs


class Desk:
    """One node's order, and what was written by it."""

    def __init__(self, *, is_shared: bool = True) -> None:
        pool = Pool()
        self.nodes = Nodes(is_shared=is_shared)
        self.seconds = 0.0
        self.clock = HybridClock(lambda: 1e9 + self.seconds)
        self.is_looking = False
        self.order = Order(self.nodes, self.clock, pool.new_id, lambda: self.seconds, self._look_later)
        self.filed: list[Entry] = []

    def _look_later(self) -> None:
        self.is_looking = True

    def begin(self, *accounts: str) -> Entry:
        entry = self.order.entry(accounts, accounts[0], MESSAGE)
        self.order.begin(entry, self.filed.append)
        return entry


@pytest.mark.asyncio
async def test_none_is_shown_before_an_older_one_of_its_archives() -> None:
    rnd = random.Random(3)
    for _ in range(200):
        desk, shown = Desk(is_shared=False), []
        entries = [desk.begin(*rnd.sample("abcde", 2)) for _ in range(30)]
        assert desk.filed == entries
        todo = entries[:]
        rnd.shuffle(todo)
        while len(shown) < len(entries):
            if todo:
                todo.pop().written()
            for entry in entries:
                if entry.is_ready and entry not in shown and rnd.random() < 0.7:
                    for account in entry.accounts:
                        assert await desk.order.horizon(account) == entry.id
                    shown.append(entry)
                    entry.shown()
        assert len(desk.order) == 0


@pytest.mark.asyncio
async def test_what_was_not_written_holds_nobody_up() -> None:
    desk = Desk(is_shared=False)
    one, two = desk.begin("a", "b"), desk.begin("b", "c")
    two.written()
    assert not two.is_ready and await desk.order.horizon("b") == one.id
    one.written(OSError("away"))
    assert one.is_ready and str(one.error) == "away"
    assert not two.is_ready
    one.shown()
    assert two.is_ready and await desk.order.horizon("a") > two.id


@pytest.mark.asyncio
async def test_a_page_has_nothing_that_begins_after_it() -> None:
    desk = Desk(is_shared=False)
    horizon = await desk.order.horizon("a")
    assert desk.begin("a").id > horizon


@pytest.mark.asyncio
async def test_it_is_written_when_the_other_node_has_agreed_and_goes_when_that_lets_it() -> None:
    desk = Desk()
    desk.nodes.there["a"] = ["b"]
    entry = desk.begin("a")
    assert desk.nodes.verbs() == ["hold"] and not desk.filed
    desk.order.hear("b", "taken", "a", entry.id, b"")
    assert desk.filed == [entry]
    entry.written()
    assert not entry.is_ready
    desk.order.hear("b", "go", "a", entry.id, b"")
    assert entry.is_ready
    entry.shown()
    entry.ended()
    assert desk.nodes.verbs() == ["end"] and len(desk.order) == 0


@pytest.mark.asyncio
async def test_one_that_is_late_has_another_id_and_so_have_those_behind_it() -> None:
    desk = Desk()
    desk.nodes.there["a"] = ["b"]
    one, two, other = desk.begin("a", "x"), desk.begin("x"), desk.begin("y")
    old, floor = one.id, bound(desk.clock.read() + 1_000_000)
    assert desk.filed == [other]
    desk.order.hear("b", "late", "a", old, floor)
    assert floor < one.id < two.id and other.id < floor
    assert desk.nodes.told[-1] == ("b", "hold", "a", one.id, floor), "in the place that is held for it"
    desk.order.hear("b", "taken", "a", old, b"")
    assert desk.filed == [other], "what is said of the old id counts no more"
    desk.order.hear("b", "go", "a", one.id, b"")
    assert desk.filed == [other, one, two]


@pytest.mark.asyncio
async def test_a_larger_one_waits_for_one_of_another_node_and_a_smaller_one_is_late() -> None:
    desk = Desk()
    desk.nodes.here["a"] = [object()]
    await_known = desk.begin("a")
    await_known.written()
    assert not await_known.is_ready and desk.nodes.verbs() == ["ask"]
    desk.order.hear("b", "known", "a", b"", b"")
    assert await_known.is_ready
    desk.order.hear("b", "hold", "a", await_known.id[:-1], b"")
    assert desk.nodes.verbs() == ["late"]
    await_known.shown()
    await_known.ended()
    late = desk.begin("a")
    late.written()
    assert not late.is_ready
    theirs = bound(desk.clock.next())
    desk.order.hear("b", "hold", "a", theirs, await_known.id[:-1])
    assert late.is_ready and desk.nodes.verbs() == ["taken"], "what comes in its place is behind it"
    late.shown()
    late.ended()
    assert desk.nodes.verbs() == ["go"]


@pytest.mark.asyncio
async def test_what_was_seen_by_who_is_gone_counts_before_it_is_told_that_he_is() -> None:
    desk = Desk()
    desk.seconds = 1.0
    desk.nodes.here["a"] = [object()]
    asking = asyncio.ensure_future(desk.order.horizon("a"))
    await asyncio.sleep(0)
    small = bound(desk.clock.read() - 1)
    desk.order.hear("b", "known", "a", b"", b"")
    seen = await asking
    desk.nodes.here.clear()
    desk.nodes.verbs()
    for _ in range(2):
        desk.order.hear("b", "hold", "a", small, b"")
        node, verb, account, id, other = desk.nodes.told.pop()
        assert (node, verb, account, id) == ("b", "away", "a", small) and other > seen
        desk.order.left("a")
    desk.seconds += STUCK_SECONDS
    assert desk.order.tick() and not desk.order.tick(), "then it is forgotten"
    desk.order.hear("b", "hold", "a", small, b"")
    assert desk.nodes.told == [("b", "away", "a", small, b"")]


@pytest.mark.asyncio
async def test_a_page_waits_for_what_is_under_way_elsewhere() -> None:
    desk = Desk()
    desk.nodes.here["a"] = [object()]
    asking = asyncio.ensure_future(desk.order.horizon("a"))
    await asyncio.sleep(0)
    theirs = bound(desk.clock.next())
    desk.order.hear("b", "keep", "a", theirs, b"")
    desk.order.hear("b", "known", "a", b"", b"")
    await asyncio.sleep(0)
    assert not asking.done()
    desk.order.hear("b", "end", "a", theirs, b"")
    assert theirs < await asking
    desk.order.hear("b", "hold", "a", theirs, b"")
    assert desk.nodes.verbs()[-1] == "late", "a page may have shown more"


@pytest.mark.asyncio
async def test_a_page_does_not_wait_for_ever() -> None:
    desk = Desk()
    desk.nodes.here["a"] = [object()]
    asking = asyncio.ensure_future(desk.order.horizon("a", PAGE_SECONDS))
    await asyncio.sleep(0)
    desk.order.hear("b", "keep", "a", bound(desk.clock.next()), b"")
    desk.seconds += PAGE_SECONDS
    desk.order.wake("a")
    with pytest.raises(TimeoutError):
        await asking


@pytest.mark.asyncio
async def test_a_node_that_is_lost_is_waited_for_no_more() -> None:
    desk = Desk()
    desk.nodes.here["a"], desk.nodes.there["a"] = [object()], ["b"]
    one = desk.begin("a")
    desk.order.hear("b", "hold", "a", one.id[:-1], b"")
    assert not desk.filed
    desk.nodes.there.clear()
    desk.order.lost("b")
    assert desk.filed == [one]
    one.written()
    assert one.is_ready


@pytest.mark.asyncio
async def test_who_goes_holds_up_nobody_elsewhere() -> None:
    desk = Desk()
    desk.nodes.here["a"], desk.nodes.there["a"] = [object()], ["b"]
    one = desk.begin("a")
    theirs = bound(desk.clock.next())
    desk.order.hear("b", "hold", "a", theirs, b"")
    desk.nodes.told.clear()
    desk.order.part()
    assert desk.nodes.told == [("b", "away", "a", theirs, b""), ("b", "end", "a", one.id, b"")]
    assert desk.filed == [one]
    one.written()
    one.shown()
    one.ended()
    assert len(desk.order) == 0 and len(desk.nodes.told) == 2


@pytest.mark.asyncio
async def test_what_hangs_elsewhere_holds_up_nobody_for_ever() -> None:
    desk = Desk()
    desk.nodes.there["a"] = ["b"]
    one = desk.begin("a")
    desk.order.tick()
    assert not desk.filed
    desk.seconds += STUCK_SECONDS
    assert desk.is_looking and desk.order.tick()
    assert desk.filed == [one]
    one.written()
    assert one.is_ready, "it is not asked again"
    one.shown()
    one.ended()
    assert not desk.order.tick()


@pytest.mark.asyncio
async def test_a_node_that_agrees_and_never_lets_it_go_holds_up_nobody_for_ever() -> None:
    desk = Desk()
    desk.nodes.there["a"] = ["b"]
    one = desk.begin("a")
    desk.order.hear("b", "taken", "a", one.id, b"")
    one.written()
    desk.seconds += STUCK_SECONDS
    desk.order.tick()
    assert one.is_ready and desk.nodes.verbs() == ["hold"]
    assert not one.held_up(), "nor when it is handed on"
    one.shown()
    one.ended()
    assert desk.nodes.verbs() == ["end"], "it may have a place there"


@pytest.mark.asyncio
async def test_a_node_that_has_nobody_is_not_asked_again_before_it_asks() -> None:
    desk = Desk()
    desk.nodes.there["a"] = ["b"]
    one = desk.begin("a")
    desk.order.hear("b", "away", "a", one.id, b"")
    one.written()
    assert one.is_ready and desk.nodes.verbs() == ["hold"], "its session is still said to be there"
    desk.order.hear("b", "ask", "a", b"", b"")
    assert desk.nodes.verbs() == ["keep", "known"]
    assert one.held_up() and not one.is_ready
    desk.order.hear("b", "away", "a", one.id, b"")
    assert one.is_ready and not one.held_up() and desk.nodes.verbs() == []


@pytest.mark.asyncio
async def test_who_comes_before_it_is_handed_on_has_it_held_up() -> None:
    desk = Desk()
    one = desk.begin("a")
    one.written()
    assert one.is_ready
    desk.nodes.there["a"] = ["b"]
    assert one.held_up() and not one.is_ready and desk.nodes.verbs() == ["keep"]
    desk.order.hear("b", "go", "a", one.id, b"")
    assert one.is_ready and not one.held_up()


@pytest.mark.asyncio
async def test_an_answer_counts_for_what_it_answers_alone() -> None:
    desk = Desk()
    questions = []
    for _ in range(2):
        desk.nodes.here["a"] = [object()]
        desk.begin("a").written()
        [(_, verb, _, id, _)] = desk.nodes.told
        assert verb == ASK
        desk.nodes.told.clear()
        questions.append(id)
    desk.order.hear("b", KNOWN, "a", questions[0], b"")
    assert not any(entry.is_ready for entry in desk.filed)
    desk.order.hear("b", KNOWN, "a", questions[1], b"")
    assert desk.filed[0].is_ready


@pytest.mark.asyncio
async def test_the_clock_looks_at_ways_that_are_busy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    for number in range(50):
        account = f"a{number}"
        desk.nodes.here[account] = [object()]
        one = desk.begin(account)
        [(*_, question, _)] = desk.nodes.told
        desk.nodes.told.clear()
        desk.order.hear("b", KNOWN, account, question, b"")
        one.written()
        one.ended()
    desk.order.tick()
    desk.order.hear("b", HOLD, "a7", desk.order.entry(("a7",), "a7", MESSAGE).id, b"")
    looked: list[Way] = []
    monkeypatch.setattr(Way, "is_busy", property(lambda way: looked.append(way) or bool(way.foreign)))
    assert desk.order.tick() and len(looked) == 1


@pytest.mark.asyncio
async def test_a_mark_does_not_pass_what_another_node_has_under_way() -> None:
    desk = Desk()
    desk.nodes.here["bob"] = [object()]
    assert desk.order.oldest() == b""
    held = Pool().new_id(desk.clock.next() + 50)
    desk.order.hear("b", HOLD, "bob", held, b"")
    desk.seconds += 1.0
    begun = desk.begin("bob", "alice")
    assert desk.order.oldest() == held < begun.id
    desk.order.hear("b", END, "bob", held, b"")
    assert desk.order.oldest() == begun.id


def test_nothing_of_another_node_begins_below_what_all_have_acknowledged() -> None:
    desk, old = Desk(), []
    desk.nodes.here["a"] = [object()]
    desk.order.on_old = lambda account, id: old.append((account, id))
    desk.order.horizon_now("a")
    ids = [Pool().new_id(desk.clock.next()) for _ in range(2)]
    desk.order.floor = bound(desk.clock.next())
    assert LATE not in desk.nodes.verbs()
    desk.order.hear("b", HOLD, "a", ids[0], b"")
    assert LATE in desk.nodes.verbs() and old == []
    desk.order.hear("b", KEEP, "a", ids[1], b"")
    assert LATE not in desk.nodes.verbs() and old == [("a", ids[1])]
    desk.order.hear("b", HOLD, "a", Pool().new_id(desk.clock.next()), b"")
    assert LATE not in desk.nodes.verbs()
