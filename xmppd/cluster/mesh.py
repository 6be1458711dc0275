"""All other nodes: met, heard, and given up; what they say is handed to whoever takes such records."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from xmppd.cluster.member import LINGER_SECONDS, Carrier, Letter, Member, Take
from xmppd.cluster.records import QUIET, Bye, Record
from xmppd.cluster.trunk import Taken, Trunk
from xmppd.cluster.whereabouts import Place, Whereabouts
from xmppd.core.ids import HybridClock
from xmppd.core.output import Outlet
from xmppd.core.rounds import Rounds
from xmppd.core.sessions import Sessions
from xmppd.errors import STANZA_ERROR_TYPES, StanzaError, TrunkError, TrustLost

log = logging.getLogger(__name__)

ACK_SECONDS: Final = 0.010
QUIET_ACK_SECONDS: Final = 0.100
"""How soon what was taken is acknowledged where nothing else is to be said; the latter where nobody waits for
that: most of it goes with what is said meanwhile.
"""

QUIET_SECONDS: Final = 1.5
"""Who was not heard for so long may be cut off from here; each says something every second at least."""

MOST_MEMBERS: Final = 255

ENDED: Final = 1000
"""Of how many lives of nodes it is remembered that they are over."""

STEP: Final = 64
"""Letters that come back before others have their turn."""


class Met(NamedTuple):
    """What a connection begins with, when both sides have proved who they are: name and incarnation of the
    other node, the trunk that it carries, the last frame of ours that was taken there,
    and when our HELLO was sent.
    """

    name: str
    incarnation: int
    trunk: int
    taken: int
    at: float


class Watcher(Protocol):
    """A part of the cluster that is told who comes and goes."""

    def met(self, member: Member) -> None:
        """There is a new trunk, on which nothing was said."""

    def joined(self, member: Member) -> None:
        """All its places are known now, and all of ours were sent."""

    def lost(self, member: Member) -> Iterator[None]:
        """It is given up: steps, in which its places are still known to the whereabouts."""


class Mesh:
    """The members by name, `whereabouts` with the places of all, and the way to them. `losing`: nodes that
    are being given up, some of what they had not taken may not have come back yet. `add` has somebody written
    to at the end of this turn, behind sessions; `on_left` is told of who said farewell, and `on_gone` of who
    is given up, before it can be met anew; `time` goes with all frames. `quiet`: who is not connected, or was
    not heard lately, and is not given up.
    """

    def __init__(
        self,
        name: str,
        incarnation: int,
        sessions: Sessions,
        add: Callable[[Outlet], None],
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        time: HybridClock,
    ) -> None:
        self.name = name
        self.incarnation = incarnation
        self.members: dict[str, Member] = {}
        self.whereabouts = Whereabouts()
        self.watchers: Sequence[Watcher] = ()
        self.on_left: Callable[[Member], None] = nobody_asks
        self.on_gone: Callable[[Member], None] = nobody_asks
        self._takes: Mapping[type[Record], Take] = {}
        self._by_index: list[Member | None] = [None] * (MOST_MEMBERS + 1)
        self._sessions = sessions
        self._rounds: Rounds = sessions.rounds
        self._add = add
        self.clock = clock
        self.call_later = call_later
        self.time = time
        self.losing: set[int] = set()
        self.quiet: frozenset[Member] = frozenset()
        self._ended: dict[int, None] = {}
        self._room: asyncio.Future[None] | None = None
        self._owing: set[Member] = set()
        self._owing_quietly: set[Member] = set()

    def compile(self, takes: Mapping[type[Record], Take], watchers: Sequence[Watcher]) -> None:
        """Who takes what; each kind of record is taken by one."""
        self._takes = takes
        self.watchers = watchers

    # talking

    def member(self, index: int) -> Member:
        """The member that an index of the whereabouts stands for."""
        found = self._by_index[index]
        assert found is not None, index
        return found

    def present(self) -> Iterable[Member]:
        """All members that are not given up."""
        return self.members.values()

    def hears_all(self) -> bool:
        """Whether everybody is connected and was heard lately."""
        return not self.quiet and all(member.carrier is not None for member in self.members.values())

    def is_first(self) -> bool:
        """Whether this node has the smallest name of all that are connected."""
        return all(self.name < name for name, member in self.members.items() if member.carrier is not None)

    def send(self, member: Member, record: Record, size: int = 64) -> int:
        """Tell a member something; the number of the frame that it goes with."""
        if type(record) in QUIET:
            self.pace(member)
        elif not member.is_due:
            self.due(member)
        return member.trunk.send(record, size)

    def mention(self, member: Member, record: Record, size: int = 64) -> int:
        """Tell a member something that has a little time: with what is said next."""
        member.linger(max(LINGER_SECONDS, member.pause))
        return member.trunk.send(record, size)

    def pace(self, member: Member) -> None:
        """Write to it at the end of this turn, or a little later if something was written just before."""
        if member.is_due or member.is_paced:
            return
        if (pause := member.pause) > 0:
            member.linger(pause)
        else:
            self.due(member)

    def send_all(self, record: Record, size: int = 64) -> None:
        """Tell all."""
        for member in self.members.values():
            self.send(member, record, size)

    def post(self, member: Member, record: Record, size: int, letter: Letter) -> None:
        """Tell a member something that comes back to `letter`; see `Trunk.post`."""
        if not member.is_due:
            self.due(member)
        member.trunk.post(record, size, letter)

    def due(self, member: Member) -> None:
        """Write to it at the end of this turn, or when it is due already."""
        if not member.is_due:
            member.is_due = True
            self._add(member)

    def room(self) -> asyncio.Future[None] | None:
        """What to wait for before more is sent: that no trunk is full. None where none is."""
        for member in self.members.values():  # `_is_full`, for each presence
            if member.trunk.is_full:
                break
        else:
            return None
        if self._room is None:
            self._room = asyncio.get_running_loop().create_future()
        return self._room

    def _is_full(self) -> bool:
        # A loop, because this is asked for each message and presence: `any` costs twice as much.
        for member in self.members.values():  # noqa: SIM110
            if member.trunk.is_full:
                return True
        return False

    def _look_for_room(self) -> None:
        if self._room is not None and not self._is_full():
            room, self._room = self._room, None
            if not room.done():
                room.set_result(None)

    # connections

    def met(self, met: Met, carrier: Carrier) -> Member:
        """A node is connected: the trunk goes on, or a new one begins."""
        member = self.members.get(met.name)
        if member is not None and (member.incarnation, member.trunk.number) != (
            met.incarnation,
            met.trunk,
        ):
            self.give_up(member, "it began anew")
            member = None
        is_new = member is None
        if member is None:
            member = self._welcome(met)
        elif member.carrier is not None:
            member.carrier.close()
        frames = member.trunk.resume(met.taken, met.at)
        member.carrier = carrier
        if frames:
            carrier.write(frames)
        if is_new:
            log.info("node-met", extra={"node": member.name})
            for watcher in self.watchers:
                watcher.met(member)
        self.due(member)
        return member

    def _welcome(self, met: Met) -> Member:
        index = next((i for i in range(1, MOST_MEMBERS + 1) if self._by_index[i] is None), 0)
        if not index:
            raise TrunkError("there are too many nodes")
        trunk: Trunk[Letter] = Trunk(self.clock, met.trunk, self.time)
        member = Member(
            met.name,
            met.incarnation,
            index,
            trunk,
            self.clock,
            self.call_later,
            self._add,
            lambda: self._sessions.is_writing,
        )
        self.members[member.name] = self._by_index[index] = member
        self._ended.pop(member.incarnation, None)
        return member

    def disconnected(self, member: Member, carrier: Carrier) -> None:
        """A connection ended; it is dialed again by whoever made it."""
        if member.carrier is carrier:
            member.carrier = None

    def received(self, member: Member, carrier: Carrier, frame: bytes) -> None:
        """A whole frame came, without its length."""
        if member.is_gone or member.carrier is not carrier:
            return
        trunk = member.trunk
        acked = trunk.acked
        try:
            taken = trunk.take(frame)
        except TrustLost:
            self._cut(member)
            return
        except TrunkError as error:
            self.give_up(member, str(error))
            return
        if taken is None:
            return
        if taken.missed or taken.settled or taken.opened:
            give_back(taken)
        if trunk.acked > acked:
            member.acknowledged()
            self._look_for_room()
        is_quiet = self._hand_over(member, taken.records)
        if self.members.get(member.name) is not member:  # given up by what it said
            return
        if trunk.owes_ack:
            self._owe(member, is_quiet=is_quiet)
        if trunk.is_waiting and not member.lingers:
            self.due(member)

    def _hand_over(self, member: Member, records: Sequence[Record]) -> bool:
        """Have what a member says taken, until it is given up by that; whether nobody waits for any of it."""
        takes, is_quiet = self._takes, bool(records)
        for record in records:
            kind = type(record)
            is_quiet = is_quiet and kind in QUIET
            try:
                takes[kind](member, record)
            except Exception:  # a mistake of ours costs one record, and nothing else
                log.exception("record-failed", extra={"node": member.name, "record": kind.__name__})
            if member.is_gone:
                break
        return is_quiet

    def _owe(self, member: Member, *, is_quiet: bool) -> None:
        """Acknowledge what was taken in a while."""
        owing, seconds = (self._owing_quietly, QUIET_ACK_SECONDS) if is_quiet else (self._owing, ACK_SECONDS)
        if member not in owing and member not in self._owing:
            owing.add(member)
            self.call_later(seconds, lambda: self._acknowledge(member, owing))

    @staticmethod
    def _acknowledge(member: Member, owing: set[Member]) -> None:
        owing.discard(member)
        if member.trunk.owes_ack:
            member.write_behind()

    def _cut(self, member: Member) -> None:
        """The connection has to be made anew."""
        carrier, member.carrier = member.carrier, None
        if carrier is not None:
            carrier.close()

    # time

    def tick(self) -> None:
        """Called every 0.5 s: say that we live, and look who does not."""
        for member in [*self.members.values()]:
            if member.trunk.look():
                member.was_silent = True
                self.give_up(member, "it is silent")
            elif member.carrier is not None:
                member.trunk.beat()
                member.write_behind()
        since = self.clock() - QUIET_SECONDS
        self.quiet = frozenset(
            member for member in self.members.values() if member.carrier is None or member.trunk.heard < since
        )

    def bid_farewell(self) -> None:
        """Tell all that nothing more comes."""
        for member in self.members.values():
            self.send(member, Bye())
            member.write()

    def take_bye(self, member: Member, record: Bye) -> None:
        """It goes, and told all before."""
        log.info("node-left", extra={"node": member.name})
        member.has_left = True
        self.on_left(member)  # first: whoever dials must not begin anew with it
        self._end(member)

    def give_up(self, member: Member, why: str) -> None:
        """A node is gone, or a stranger to us from now on: what it had not taken goes elsewhere, its sessions
        are at their end.
        """
        if member.is_gone:
            return
        log.warning("node-lost", extra={"node": member.name, "reason": why})
        self._end(member)

    def _end(self, member: Member) -> None:
        member.is_gone = True
        self._cut(member)
        del self.members[member.name]
        self._look_for_room()
        self._owing.discard(member)
        self._owing_quietly.discard(member)
        self.losing.add(member.index)
        self.end(member.incarnation)
        self.on_gone(member)
        self._rounds.do(f"\nlost {member.index}", self._lose(member), is_short=False)

    def end(self, incarnation: int) -> None:
        """This life of a node is over as far as this one can tell."""
        self._ended[incarnation] = None
        if len(self._ended) > ENDED:
            del self._ended[next(iter(self._ended))]

    def has_ended(self, incarnation: int) -> bool:
        """Whether this life of a node is over, or was given up and not met again: what it held alone is
        anybody's.
        """
        return incarnation in self._ended

    def _lose(self, member: Member) -> Iterator[None]:
        for number, letter in enumerate([*member.trunk.unsettled]):
            letter.missed(StanzaError("service-unavailable"))
            if number % STEP == STEP - 1:
                yield
        for watcher in self.watchers:
            yield from watcher.lost(member)
        self.losing.discard(member.index)
        self._by_index[member.index] = None

    # places

    def places(self, account: str) -> tuple[Place, ...]:
        """Where the account has sessions on other nodes that are there."""
        places = self.whereabouts.of(account)
        if self.losing and places:
            return tuple(place for place in places if place.node not in self.losing)
        return places

    def available(self, account: str) -> Collection[int]:
        """On which of them the account has sessions that are available."""
        nodes = self.whereabouts.available(account)
        if self.losing and nodes:
            return [node for node in nodes if node not in self.losing]
        return nodes

    def spread(self, accounts: Collection[str]) -> dict[int, list[str]]:
        """Those of some accounts that are available on other nodes that are there, by node."""
        found = self.whereabouts.spread(accounts)
        for node in self.losing if found else ():
            found.pop(node, None)
        return found

    def absent(self, accounts: Sequence[str]) -> Sequence[str]:
        """Those of some accounts that are not available on any of them."""
        if not self.losing:
            return self.whereabouts.absent(accounts)
        there = set().union(*self.spread(accounts).values())
        return [account for account in accounts if account not in there]


def give_back(taken: Taken[Letter]) -> None:
    """Letters that a frame told of."""
    for letter, reason in taken.missed:
        letter.missed(StanzaError(reason if reason in STANZA_ERROR_TYPES else "service-unavailable"))
    for letter in taken.settled:
        letter.settled()
    for letter in taken.opened:
        letter.opened()


def nobody_asks(member: Member) -> None:
    """Nobody wants to know."""
