"""Many clients at once: their stanzas overlap while handlers wait for the store.

Nobody can say beforehand what comes out, so the oracle is a set of rules: who a stanza is from, whom presence
may reach, how often an iq is answered, in which order messages come, and that nothing fails or stays.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from fuzzing.arena import Arena, Finding, Seat
from fuzzing.grammar import Grammar
from fuzzing.jids import BARE, SLOTS, parts
from fuzzing.reference import CLIENT, Input, Tree, children, received

SHY = ("alice@localhost", "bob@localhost")
STRANGER = "mallory@localhost"
"""The shy never show themselves to the stranger, whatever the stranger tries."""

Key = tuple[str, str, str | None]


class Races:
    """Rounds of overlapping stanzas."""

    def __init__(self, random: Random, arena: Arena) -> None:
        self.random = random
        self.arena = arena
        self.grammar = Grammar(random)
        self.counts: Counter[str] = Counter()
        self._said: set[Key] = set()
        """Sender, kind and id of all that was sent in this round and before."""
        self._asked: Counter[tuple[str, str]] = Counter()
        self._order: dict[tuple[str, str], int] = {}
        self._count = 0

    async def run(self, stanzas: int) -> None:
        """Rounds until so many stanzas were sent."""
        while self.counts["stanzas"] < stanzas:
            for slot, seat in enumerate(self.arena.seats):
                if seat.wire is None:
                    await self.arena.do(["login", slot])
            await self.round()

    async def round(self) -> None:
        """Some clients send at the same time; some are cut off in the middle of it."""
        random, arena = self.random, self.arena
        self._asked.clear()
        gone: list[Seat] = []
        for _ in range(random.choice((2, 5, 10, 20))):
            seat = random.choice(arena.seats)
            if seat in gone or seat.wire is None:
                continue
            self._send(seat)
            if random.random() < 0.02:
                gone.append(seat)
                seat.wire.transport.close()
        await arena.rest()
        for seat in arena.seats:
            assert seat.wire is not None
            self._look(seat, seat.wire.taken(), gone=seat in gone)
        for seat in gone:
            seat.wire = None
            seat.input.close()
            del arena.oracle.accounts[seat.account].logins[seat.resource]
        arena.listen()
        if arena.world.app.sessions.by_full.keys() != {s.login.full for s in arena.seats if s.wire}:
            raise Finding("left over", f"{list(arena.world.app.sessions.by_full)}")

    def _send(self, seat: Seat) -> None:
        """One to three stanzas in one piece, which the server processes when it comes to it."""
        wire = seat.wire
        assert wire is not None
        if not wire.transport.is_reading():
            return
        data = b""
        for _ in range(self.random.choice((1, 1, 3))):
            data += self._stanza(seat)
        wire.push(data)

    def _stanza(self, seat: Seat) -> bytes:
        """A stanza that the shy may send; what it is, is remembered."""
        while True:
            text = self._draw()
            reader = Input()
            reader.feed(text.encode())
            reader.close()
            tree = reader.trees[0][0]
            if not (seat.account in SHY and shows_to_stranger(tree)):
                break
        self.counts["stanzas"] += 1
        attrs = dict(tree[1])
        full = seat.login.full
        self._said.add((full, tree[0], attrs.get("id")))
        kind = attrs.get("type")
        to = parts(attrs["to"]) if attrs.get("to") else ("", "", "")
        if tree[0].endswith("}iq") and attrs.get("id") and kind in ("get", "set") and not (to and to[2]):
            self._asked[full, attrs["id"]] += 1
        return text.encode()

    def _draw(self) -> str:
        """More about rosters than usual, and messages that can be counted."""
        draw = self.random.random()
        if draw < 0.3:
            return self.grammar.subscription()
        if draw < 0.4:
            return self.grammar.roster()
        if draw < 0.55:
            self._count += 1
            to = self.random.choice(BARE)
            return f"<message to='{to}' id='n{self._count}' type='chat'><body>{self._count}</body></message>"
        return self.grammar.stanza()

    def _look(self, seat: Seat, data: bytes, *, gone: bool) -> None:
        """Hold what a session received against the rules."""
        wire = seat.wire
        assert wire is not None
        trees, closed = received(data)
        full = seat.login.full
        if closed and not gone:
            raise Finding("closed", f"{full}: {trees[-1:]}")
        self.counts["deliveries"] += len(trees)
        for tree in trees:
            attrs = dict(tree[1])
            sender, id = attrs.get("from"), attrs.get("id")
            if sender is not None and attrs.get("type") != "error":
                self._is_honest(full, tree, sender, id)
            is_answer = tree[0] == f"{{{CLIENT}}}iq" and attrs.get("type") in ("result", "error")
            if is_answer and id and self._asked[full, id] > 0:
                self._asked[full, id] -= 1
            if id and id.startswith("n") and id[1:].isdigit() and attrs.get("type") == "chat":
                self._in_order(full, sender or "", int(id[1:]), tree)
        if not gone and any(self._asked[key] > 0 for key in self._asked if key[0] == full):
            raise Finding("missing", f"{full} was not answered: {+self._asked}")

    def _is_honest(self, full: str, tree: Tree, sender: str, id: str | None) -> None:
        """Who it is from has sent it; the stranger learns nothing of the shy."""
        address = parts(sender)
        if address is None:
            raise Finding("delivery", f"{full} received {tree}")
        account = f"{address[0]}@{address[1]}"
        is_presence = tree[0] == f"{{{CLIENT}}}presence"
        kind = dict(tree[1]).get("type")
        is_forwarded = address[0] and address[2] and kind not in ("unavailable", "result")
        if is_forwarded and (sender, tree[0], id) not in self._said:
            raise Finding("delivery", f"{full} received {tree}, which {sender} never sent")
        shown = is_presence and kind in (None, "unavailable")
        if shown and account in SHY and full.startswith(STRANGER):
            raise Finding("delivery", f"{full} received {tree}")

    def _in_order(self, full: str, sender: str, number: int, tree: Tree) -> None:
        """Chat messages of one session to one account arrive in order, kept ones too."""
        last = self._order.get((full, sender), 0)
        if number <= last and not any(child[0].endswith("delay") for child in children(tree)):
            raise Finding("order", f"{full} received {number} of {sender} after {last}")
        self._order[full, sender] = max(number, last)


def shows_to_stranger(tree: Tree) -> bool:
    """Whether a stanza lets the stranger see its sender."""
    attrs = dict(tree[1])
    to = parts(attrs["to"]) if attrs.get("to") else None
    is_presence = tree[0] == f"{{{CLIENT}}}presence"
    to_stranger = to is not None and f"{to[0]}@{to[1]}" == STRANGER
    return is_presence and to_stranger and attrs.get("type") in (None, "subscribed", "unavailable", "error")


async def race(seed: int, stanzas: int) -> tuple[Counter[str], Finding | None]:
    """A run from a seed; what it did, and what it found. Threads make every run a little different."""
    async with Arena() as arena:
        races = Races(Random(seed), arena)
        try:
            for slot in range(len(SLOTS)):
                await arena.do(["login", slot])
            await races.run(stanzas)
            for seat in arena.seats:
                if seat.wire is not None:
                    seat.login.due.clear()
            await arena.finish(compare=False)
        except Finding as finding:
            return races.counts, finding
    return races.counts, None
