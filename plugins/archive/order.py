"""Which messages are being archived: so that whoever has seen one of an archive has seen all before it.

A client catches up behind the last message that it saw. So no message of an archive is shown, live or in a
page, while an older one of that archive is under way: on this node, or on another one. Each node sees to that
for the sessions that it has. It knows what is under way elsewhere, for whoever begins a message tells the
nodes on which its accounts have sessions, and a node whose first session of an account comes asks all others.
A message has its id for good, and is written, when all those nodes have agreed: they do unless they have
passed a larger one, and then hold its place until it comes with another id.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from heapq import heappop, heappush
from math import inf
from operator import attrgetter
from typing import Any, Final

from xmppd.plugin import Stanza

from .elsewhere import ASK, AWAY, END, GO, HOLD, KEEP, KNOWN, LATE, TAKEN, Alone, Clock, Nodes
from .ids import at_of, bound
from .under_way import Entry, Foreign, Way

KNOWN_SECONDS: Final = 5.0
"""How long another node is waited for that should say what is under way there."""
STUCK_SECONDS: Final = 60.0
"""After so long a message that hangs, here or elsewhere, holds up nobody any more."""
AT_ONCE: Final = 64
"""How many that wait for nothing more are told of that in one turn of the loop."""


_ID: Final = attrgetter("id")


class Order:
    """All messages under way, by account. `make` makes the id of a moment of the clock; `seconds` is a clock
    that nobody sets; `look_later` is called whenever `tick` should be, in a few seconds. `newest`:
    the largest id that was given. `on_failed` is told the id of what is in the archives and was refused, and
    `on_going` for which account something of this node goes on, where there are others. Nothing of other
    nodes begins below `floor`; of what has its id for good and is below that, `on_old` is told, by account.
    """

    def __init__(
        self,
        nodes: Nodes,
        clock: Clock,
        make: Callable[[int], bytes],
        seconds: Callable[[], float],
        look_later: Callable[[], None],
    ) -> None:
        self._nodes = nodes
        self._clock = clock
        self._make = make
        self._seconds = seconds
        self._look_later = look_later
        self._ways: dict[str, Way] = {}
        self._unfinal: dict[str, list[Entry]] = {}
        self._by_id: dict[bytes, Entry] = {}
        self._busy: set[str] = set()
        self._met = 0
        self._asks = 0
        self._telling: deque[Entry] = deque()
        self._is_telling = False
        self.newest = b""
        self.floor = b""
        self.on_failed: Callable[[bytes], None] = lambda id: None
        self.on_old: Callable[[str, bytes], None] = lambda account, id: None
        self.on_going: Callable[[str], None] = lambda account: None

    def __len__(self) -> int:
        """Into how many archives something is under way."""
        return sum(not way.is_empty for way in self._ways.values())

    def oldest(self) -> bytes:
        """The smallest id of what is under way on this node, or elsewhere for accounts that have sessions
        here; b"" of nothing.
        """
        if self._nodes.is_shared:
            foreign = [way.foreign[0].id for _, way in self._busy_ways() if way.foreign]
            return min([*self._by_id, *foreign], default=b"")
        return min((way.own[0].id for way in self._ways.values() if way.own), default=b"")

    # messages of this node

    def entry(self, accounts: Sequence[str], sender: str, message: Stanza) -> Entry:
        """Another one, younger than all others here, of an account `sender`."""
        return Entry(self, self._make(self._clock.next()), accounts, sender, message)

    def begin(self, entry: Entry, file: Callable[..., None], *about: Any) -> None:
        """Have it filed, and call `file` with it and what it is about, when it has its id for good: at once
        where no other node has a say in that.
        """
        if entry.id > self.newest:
            self.newest = entry.id
        ways = self._ways
        for account in entry.accounts:
            (ways.get(account) or self._way(account)).own.append(entry)
        if not self._nodes.is_shared:
            entry.is_final = True
            file(entry, *about)
            return
        entry.share(partial(file, entry, *about), self._seconds())
        self._by_id[entry.id] = entry
        self._look_later()
        for key in entry.keys:
            self._unfinal.setdefault(key, []).append(entry)
        for account in entry.accounts:
            way = self._ways[account]
            way.unended.append(entry)
            self._is_known(account, way)  # it will be when this is written
            for node in self._nodes.of(account):
                self._announce(entry, account, node, HOLD)
        self._settle([entry])

    def _announce(self, entry: Entry, account: str, node: str, verb: str, old: bytes = b"") -> None:
        assert entry.guards is not None
        guard = account, node
        entry.guards[guard] = entry.id
        if verb == HOLD:
            entry.agreeing.add(guard)
        entry.held.add(guard)
        self._nodes.tell(node, verb, account, entry.id, old)

    def _settle(self, entries: list[Entry]) -> None:
        """Those have their ids for good of which it is so, and those behind them, one after the other."""
        while entries:
            entry = entries.pop()
            lines = [self._unfinal[key] for key in entry.keys] if not entry.is_final else ()
            if not lines or entry.agreeing or any(line[0] is not entry for line in lines):
                continue
            entry.is_final = True
            for key, line in zip(entry.keys, lines, strict=True):
                del line[0]
                if line:
                    entries.append(line[0])
                else:
                    del self._unfinal[key]
            file, entry.file = entry.file, None
            if file is not None:
                file()

    def _rename(self, late: Entry) -> None:
        """Give another id to one that has none for good, and to all behind it whose order is its own: by the
        lines that these share.
        """
        keys: set[str] = set()
        behind = {late.id: late}
        ids, renamed = [late.id], []
        while ids:
            id = heappop(ids)
            renamed.append(behind[id])
            for key in behind[id].keys:
                if key in keys:
                    continue
                keys.add(key)
                for entry in self._unfinal.get(key, ()):
                    if entry.id > id and entry.id not in behind:
                        behind[entry.id] = entry
                        heappush(ids, entry.id)
        for entry in renamed:
            self._give_another_id(entry)
        for account in keys:
            if (way := self._ways.get(account)) is not None:
                self._let(account, way)

    def _give_another_id(self, entry: Entry) -> None:
        assert entry.guards is not None
        del self._by_id[entry.id]
        entry.id = self._make(self._clock.next())
        self._by_id[entry.id] = entry
        for account in entry.accounts:
            way = self._ways[account]
            for entries in (way.own, way.unended):
                entries.remove(entry)
                entries.append(entry)
        for (account, node), old in [*entry.guards.items()]:
            self._announce(entry, account, node, HOLD, old)

    def look(self, entry: Entry) -> None:
        """Let it go on if it is written and the oldest of all its archives."""
        if not entry.is_written or entry.is_ready or not self._may_go(entry):
            return
        entry.is_ready = True
        if entry.told is not None:
            self._telling.append(entry)
            if not self._is_telling:
                self._is_telling = True
                asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        """Have those go on that may. What they leave the way to is told as well, but not too many in a turn
        of the loop.
        """
        telling = self._telling
        try:
            for _ in range(AT_ONCE):
                if not telling:
                    break
                entry = telling.popleft()
                if entry.is_ready:  # or it was held up since
                    entry.go_on()
        finally:
            self._is_telling = bool(telling)
            if telling:
                asyncio.get_running_loop().call_soon(self._tell)

    def _may_go(self, entry: Entry) -> bool:
        ways = self._ways
        for account in entry.accounts:
            way = ways[account]
            if way.own[0] is not entry or (way.foreign and way.foreign[0].id < entry.id):
                return False
        if entry.guards is None:
            return True
        may_go = True
        for account in entry.accounts:
            may_go = self._is_known(account, ways[account]) and may_go
            for node in self._nodes.of(account):
                guard = account, node
                if guard not in entry.guards and guard not in entry.discharged:
                    self._announce(entry, account, node, KEEP)
        if entry.held or not may_go:
            return False
        for account in entry.accounts:
            way = ways[account]
            way.passed = max(way.passed, entry.id)
            self.on_going(account)
        return True

    def held_up(self, entry: Entry) -> bool:
        """See `Entry.held_up`."""
        if entry.guards is None or entry.error is not None or self._may_go(entry):
            return False
        entry.is_ready = False
        return True

    def shown(self, entry: Entry) -> None:
        """See `Entry.shown`."""
        if entry.is_shown:
            return
        entry.is_shown = True
        following: Entry | None = None
        for account in entry.accounts:
            way = self._ways[account]
            own = way.own
            own.remove(entry)
            if not own:
                if entry.guards is None:
                    self._tidy(account, way)
            elif (first := own[0]) is not following:  # where it is the same it may go when all ways are clear
                if following is not None:
                    self.look(following)
                following = first
            if way.waiting:
                way.wake()
        if following is not None:
            self.look(following)

    def ended(self, entry: Entry, *, is_well: bool = True) -> None:
        """See `Entry.ended`."""
        if not is_well and entry.error is None:
            self.on_failed(entry.id)
        if entry.guards is None or self._by_id.pop(entry.id, None) is None:
            return
        self.shown(entry)
        self._tell_end(entry)
        for account in entry.accounts:
            way = self._ways[account]
            way.unended.remove(entry)
            self._let(account, way)

    def _tell_end(self, entry: Entry) -> None:
        """Tell all who may have a place for it."""
        assert entry.guards is not None
        for (account, node), id in {**entry.discharged, **entry.guards}.items():
            self._nodes.tell(node, END, account, id, b"")

    # those of other nodes

    def hear(self, node: str, verb: str, account: str, id: bytes, other: bytes) -> None:
        """Another node says something of a message under way."""
        if verb == ASK:
            self._asked(node, account, id)
        elif verb == KNOWN:
            self._told(node, account, id)
        elif verb in (HOLD, KEEP):
            self._hold(node, account, id, other, is_final=verb == KEEP)
        elif verb == END:
            self._ended_there(node, account, id)
        elif (entry := self._by_id.get(id)) is not None:
            self._answered(entry, (account, node), verb, other)

    def _answered(self, entry: Entry, guard: tuple[str, str], verb: str, other: bytes) -> None:
        """A node says whether one of ours has its place there."""
        if entry.guards is None or entry.guards.get(guard) != entry.id:
            return
        if verb == LATE:
            entry.guards[guard] = other
            self._clock.see(at_of(other))
            self._rename(entry)
            return
        was_agreeing = guard in entry.agreeing
        entry.agreeing.discard(guard)
        if verb != TAKEN:
            entry.held.discard(guard)
        if verb == AWAY:
            entry.discharge((guard,))  # it may still be said to have a session there
            if other and was_agreeing:
                self._clock.see(at_of(other))
                self._rename(entry)
        self._settle([entry])
        self.look(entry)

    def _hold(self, node: str, account: str, id: bytes, old: bytes, *, is_final: bool) -> None:
        """Another node begins a message: it has its place here, unless a larger one has passed."""
        if not self._nodes.sessions(account):
            left = self._ways.get(account)
            is_late = left is not None and left.witness is not None and id <= left.passed
            self._nodes.tell(node, AWAY, account, id, self._make(self._clock.next()) if is_late else b"")
            return
        way = self._way(account)
        if old:
            way.drop(node, old)
        is_late = not is_final and (id <= way.passed or id < self.floor)
        place = self._make(self._clock.next()) if is_late else id
        held = Foreign(place, id, node, self._seconds())
        self._watch(account)
        insort(way.foreign, held, key=_ID)
        if is_final and id < self.floor:
            self.on_old(account, id)
        if is_late:
            held.is_let = True  # it is told to go when it comes with another id
            self._nodes.tell(node, LATE, account, id, place)
        self._let(account, way)
        if not held.is_let:
            self._nodes.tell(node, TAKEN, account, id, b"")

    def _ended_there(self, node: str, account: str, id: bytes) -> None:
        way = self._ways.get(account)
        if way is not None:
            way.drop(node, id)
            self._let(account, way)

    def _let(self, account: str, way: Way) -> None:
        """Let those go that are the first, of this node and of others."""
        if way.foreign and self._is_known(account, way):
            first = way.foreign[0].node
            for foreign in way.foreign:
                if foreign.node != first or (way.unended and way.unended[0].id < foreign.id):
                    break
                if not foreign.is_let:
                    foreign.is_let = True
                    way.passed = max(way.passed, foreign.id)
                    self._nodes.tell(foreign.node, GO, account, foreign.id, b"")
        if way.own:
            self.look(way.own[0])
        way.wake()
        self._tidy(account, way)

    # what is under way elsewhere

    def _way(self, account: str) -> Way:
        way = self._ways.get(account)
        if way is None:
            passed = bound(self._clock.next()) if self._nodes.is_shared else b""
            way = self._ways[account] = Way(passed)
        return way

    def _tidy(self, account: str, way: Way) -> None:
        """Forget a way that is empty, unless its account has a session that was shown something, or had one
        lately: of its end is heard a while after it.
        """
        is_over = way.left_at > 0.0 and way.left_at <= self._seconds() - STUCK_SECONDS
        if way.is_empty and not way.waiting and (way.witness is None or is_over):
            self._ways.pop(account, None)

    def _is_witnessed(self, account: str, way: Way) -> bool:
        if way.witness is None or way.met != self._met:
            return False
        return any(session is way.witness for session in self._nodes.sessions(account))

    def _is_known(self, account: str, way: Way) -> bool:
        """Whether all that is under way is known here, if the account has a session; all are asked if not."""
        if not self._is_witnessed(account, way):
            sessions = self._nodes.sessions(account)
            if not sessions:
                return True
            way.witness, way.met = sessions[0], self._met
            way.asked_at, way.left_at = self._seconds(), 0.0
            way.missing = frozenset(self._nodes.others())
            self._asks += 1
            way.question = self._asks.to_bytes(8, "big")
            self._watch(account)
            for node in way.missing:
                self._nodes.tell(node, ASK, account, way.question, b"")
        return not way.missing

    def _watch(self, account: str) -> None:
        """Have the clock look at the way of an account, while that is busy."""
        self._busy.add(account)
        self._look_later()

    def _asked(self, node: str, account: str, question: bytes) -> None:
        """The first session of an account came on another node: tell what is under way here."""
        way = self._ways.get(account)
        for entry in [*way.unended] if way is not None else ():
            assert entry.guards is not None
            if (account, node) in entry.guards:
                continue  # it knows of it, or will before this is answered
            self._announce(entry, account, node, KEEP if entry.is_final else HOLD)
            if entry.is_shown:
                entry.held.discard((account, node))
        self._nodes.tell(node, KNOWN, account, question, b"")

    def _told(self, node: str, account: str, question: bytes) -> None:
        way = self._ways.get(account)
        if way is not None and question in (way.question, b""):  # nodes of the version before do not say
            way.said(node)
            self._let(account, way)

    async def horizon(self, account: str, until: float = inf, below: bytes = b"") -> bytes:
        """What a page of an archive ends in front of, `below` at most. TimeoutError: nobody can say by then.
        See `wake`.

        On one node that is the oldest under way, for nothing behind that was handed on; and this moment, for
        what begins from now on. Other nodes may have handed on what is behind it, as long as the account had
        no session here: so all that is under way by now is waited for.
        """
        if not self._nodes.is_shared:
            return self._horizon_alone(account)
        return await self.finished(account, until, below)

    async def finished(self, account: str, until: float = inf, below: bytes = b"") -> bytes:
        """This moment, or `below` if that is before it, when all is over that was under way into an archive
        in front of it. TimeoutError: nobody can say by then. See `wake`.
        """
        way = self._way(account)
        while self._nodes.is_shared and not self._is_known(account, way):
            way = await self._change(account, way, until)
        end = bound(self._clock.next())
        end = min(end, below) if below else end
        while way.has_before(end):
            way = await self._change(account, way, until)
        if self._nodes.is_shared:
            way.passed = max(way.passed, end)
        else:
            self._tidy(account, way)
        return end

    def horizon_now(self, account: str) -> bytes | None:
        """The same where nothing has to be waited for; None where something has."""
        if not self._nodes.is_shared:
            return self._horizon_alone(account)
        way, end = self._way(account), bound(self._clock.next())
        if not self._is_known(account, way) or way.has_before(end):
            return None
        way.passed = max(way.passed, end)
        return end

    def _horizon_alone(self, account: str) -> bytes:
        way = self._ways.get(account)
        return way.own[0].id if way is not None and way.own else bound(self._clock.next())

    async def _change(self, account: str, way: Way, until: float) -> Way:
        """Wait until something is not under way any more; the way as it is then. TimeoutError: it is late."""
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        way.waiting.append(change)
        self._watch(account)
        await change
        if self._seconds() >= until:
            raise TimeoutError
        return self._way(account)

    def wake(self, account: str) -> None:
        """Have those look who wait for the horizon of an archive."""
        if (way := self._ways.get(account)) is not None:
            way.wake()

    # who comes and goes

    def left(self, account: str) -> None:
        """A session of an account is over: for one that has none here any more nothing is held."""
        way = self._ways.get(account)
        if way is None or not self._nodes.is_shared or self._nodes.sessions(account):
            return
        self._watch(account)
        way.left_at = self._seconds()
        foreign, way.foreign = way.foreign, []
        self._tell_away(account, foreign)
        self._let(account, way)

    def _tell_away(self, account: str, foreign: Collection[Foreign]) -> None:
        for held in foreign:
            self._nodes.tell(held.node, AWAY, account, held.id, b"")

    def met(self) -> None:
        """There is another node, which has not said what is under way there."""
        self._met += 1

    def lost(self, node: str) -> None:
        """A node is given up: it has no say, and nothing of it is waited for."""
        for account, way in self._busy_ways():
            way.foreign = [held for held in way.foreign if held.node != node]
            way.said(node)
            self._let(account, way)
        for entry in [*self._by_id.values()]:
            self._leave(entry, [guard for guard in entry.guards or () if guard[1] == node])

    def _leave(self, entry: Entry, guards: Collection[tuple[str, str]]) -> None:
        """Ask these for nothing more."""
        if entry.guards is None or not guards:
            return
        entry.discharge(guards)
        self._settle([entry])
        self.look(entry)

    def part(self) -> None:
        """Nobody else is asked or told from now on, and nobody waited for, here or there."""
        for account, way in self._ways.items():
            self._tell_away(account, way.foreign)
        for entry in self._by_id.values():
            self._tell_end(entry)
        self._nodes = Alone()
        for account, way in [*self._ways.items()]:
            way.foreign = []
            self._let(account, way)
        for entry in [*self._by_id.values()]:
            self._leave(entry, [*(entry.guards or ())])

    def _busy_ways(self) -> list[tuple[str, Way]]:
        ways = [(account, self._ways.get(account)) for account in self._busy]
        return [(account, way) for account, way in ways if way is not None and way.is_busy]

    def tick(self) -> bool:
        """What hangs holds up nobody for ever. Whether to look again in a few seconds."""
        now = self._seconds()
        busy = self._busy_ways()
        self._busy = {account for account, _ in busy}
        for account, way in busy:
            if way.asked_at <= now - KNOWN_SECONDS:
                way.missing = ()
            way.foreign = [held for held in way.foreign if held.since > now - STUCK_SECONDS]
            self._let(account, way)
        for entry in [*self._by_id.values()]:
            if entry.since <= now - STUCK_SECONDS:
                self._leave(entry, [*(entry.agreeing | entry.held)])
                if entry.is_shown:
                    entry.ended()
        return bool(busy or self._by_id)
