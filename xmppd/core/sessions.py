"""Sessions, and the accounts they make live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from xmppd.core.barred import NOBODY, Asked, barred, bars
from xmppd.core.cluster import ONE_NODE, Cluster
from xmppd.core.directed import Directed
from xmppd.core.later import Line
from xmppd.core.origin import Target
from xmppd.core.output import (
    LARGE,
    MANY,
    MOST,
    NOWHERE,
    SLICE_SECONDS,
    Burst,
    Bursts,
    Connection,
    Cork,
    Kept,
)
from xmppd.core.roster.rosters import Roster
from xmppd.core.rounds import Rounds
from xmppd.errors import StreamError
from xmppd.stream.sasl import Login
from xmppd.xml import build
from xmppd.xml.stanza import Stanza

FLUSH = 1
"""Stored messages are handed over: what comes is stored behind them."""
DETOUR = 2
"""What was sent to the account's sessions on other nodes is under way: what comes waits for that."""
RETURN = 4
"""It was on another node, and is about to be available here: what comes is stored, as with FLUSH."""


class Broadcast(NamedTuple):
    """A presence serialised once: a receiver's copy is `head`, its ` to='...'`, and `tail`."""

    head: bytes
    tail: bytes


class Moved(Broadcast):
    """The end of a session whose node is told to stop: its client is expected on another one."""

    __slots__ = ()


class Session:
    """One bound resource of a local account (RFC 6120 7).

    `presence` is what was last broadcast (None: not available, RFC 6121 1.7), `said` the part of it that the
    client sent, `has_roster` marks an
    interested resource, `login` says how its client came in, `directed` who was sent directed presence,
    `paid_until` is when the copies of its presence so far were allowed, `number` tells it from others of its
    name on other nodes, `slots` are what plugins keep here. `line` is what it sent that is under way (None:
    nothing ever was). `message_head` and `presence_head` are what its stanzas begin with: the start tag with
    `from` and the stream's `xml:lang` (RFC 6120 8.1.2.1, 8.1.5); that of an iq is made when there is one.

    `takes_messages` is False while anything is in the way of messages (`hold_messages`); `is_open` says
    besides that its account bars nobody and nobody wants copies, so that nobody has to be asked for what
    comes. `has_copies`: what it sends may have to be copied; `copies_since`: it wants copies of all since
    that second (XEP-0280), 0: of nothing.

    `managed` is what stream management (XEP-0198) keeps of it, if its client enabled that. When it is over
    its `connection` is NOWHERE, and `reason` says why. While it is detached it has one that keeps what is
    sent.
    """

    __slots__ = (
        "__weakref__",
        "_bursts",
        "_cork",
        "_in_the_way",
        "_is_held",
        "_is_patient",
        "_out",
        "account",
        "connection",
        "copies_since",
        "directed",
        "full",
        "has_copies",
        "has_roster",
        "is_open",
        "is_over",
        "lang",
        "line",
        "live",
        "login",
        "managed",
        "message_head",
        "number",
        "paid_until",
        "presence",
        "presence_head",
        "priority",
        "reason",
        "resource",
        "said",
        "since",
        "slots",
        "takes_messages",
    )

    def __init__(
        self,
        live: LiveAccount,
        resource: str,
        connection: Connection,
        cork: Cork,
        lang: str,
        since: float,
        login: Login | None = None,
    ) -> None:
        self.live = live
        self.login = login or Login(live.account, None)
        self.account = live.account
        self.resource = resource
        self.full = f"{live.account}/{resource}"
        self.connection = connection
        self.is_over = False
        self.reason = ""
        self.lang = lang
        self.since = since
        self.presence: Broadcast | None = None
        self.said: Broadcast | None = None
        self.priority = 0
        self.paid_until = 0.0
        self.number = 0
        self.has_roster = False
        self.line: Line | None = None
        self.directed: Directed | None = None
        self.slots: dict[str, Any] | None = None
        self.managed: Any = None
        self.takes_messages = True
        self.copies_since = 0
        self.has_copies = live.is_copied
        self.is_open = live.is_plain
        self._in_the_way = 0
        self._cork = cork
        self._is_patient = False
        self._bursts: Bursts | None = None
        self._is_held = True  # nothing is written before `begin`
        self._out: list[bytes] | None = Kept(cork.kept_bytes, lambda: cork.call_soon(self._crowded))
        spoken = f" xml:lang='{build.escape_attribute(lang)}'" if lang else ""
        head = f" from='{build.escape_attribute(self.full)}'{spoken}".encode()
        self.message_head, self.presence_head = b"<message" + head, b"<presence" + head

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the login told of who this is; see `Login`."""
        return self.login.facts

    @property
    def expires(self) -> float | None:
        """When the time of its login is over, in seconds since the epoch; None: never."""
        return self.login.expires

    @property
    def is_anonymous(self) -> bool:
        """Whether its account is made up for the time being: nothing may be kept for it."""
        return self.login.tenure is None

    def begin(self, *first: bytes) -> None:
        """Send the answer to the bind, and behind it what others sent before it was due."""
        self._is_held = False
        self._out = [*first, *(self._out or ())]
        self._cork.add(self)
        self.drained()

    def _crowded(self) -> None:
        self.connection.close(StreamError("resource-constraint", "Too much came before the session began."))

    def hold_messages(self, what: int = FLUSH) -> None:
        """Something is in the way of messages: FLUSH, DETOUR, RETURN. While it is, they are kept as if nobody
        were there (XEP-0160), or wait, and what cannot be kept comes all the same.
        """
        self._in_the_way |= what
        if self.takes_messages:
            self.takes_messages = self.is_open = False
            self.live.refresh()

    @property
    def is_flushing(self) -> bool:
        """Whether stored messages are handed over, or are about to be."""
        return bool(self._in_the_way & (FLUSH | RETURN))

    def release_messages(self, what: int = FLUSH) -> None:
        """It is out of the way; harmless if repeated."""
        self._in_the_way &= ~what
        if not self.takes_messages and not self._in_the_way:
            self.takes_messages = True
            self.is_open = self.live.is_plain
            self.live.refresh()

    # its end

    def end(self) -> None:
        """Nothing is sent any more; the wire is left to who had it."""
        self.is_over = True
        self.connection = NOWHERE
        bursts, self._bursts = self._bursts, None
        self._is_held = self._is_patient = False
        self._out = None
        for burst in bursts.queue if bursts is not None else ():
            burst.finish()

    # what it is sent

    def send(self, data: bytes) -> None:
        """Queue a stanza for the client; it is written at the end of this turn of the loop, a large one at
        once, so that one read of many requests cannot fill the memory with answers.
        """
        out = self._out
        if out is None:
            self._cork.add(self)
            out = self._out = []
        elif self._is_patient:
            self._is_patient = False
            self._cork.add(self)
        out.append(data)
        if len(data) > LARGE:
            self.flush()

    def send_copy(self, data: bytes) -> None:
        """The same for a copy of what goes to many: its order among all that is sent to this client is kept,
        but what goes to other sessions alone may overtake it.
        """
        out = self._out
        if out is None:
            self._is_patient = True
            self._cork.add_patient(self)
            out = self._out = []
        out.append(data)
        if len(data) > LARGE or len(out) > MANY:
            self.flush()

    def send_all(self, stanzas: Sequence[bytes]) -> None:
        """The same for several short ones."""
        if self._is_held:
            for data in stanzas:
                self.send(data)  # each is counted
        elif len(self._queue(stanzas)) > MOST:
            self.flush()

    def _queue(self, stanzas: Sequence[bytes]) -> Sequence[bytes]:
        """Queue several as `send` does; all that is queued."""
        out = self._out
        if out is None:
            self._cork.add(self)
            out = self._out = []
        elif self._is_patient:
            self._is_patient = False
            self._cork.add(self)
        out += stanzas
        return out

    @property
    def takes_all(self) -> bool:
        """Whether its client has read enough of what it was sent to be sent more, and nothing waits."""
        return self._bursts is None and not (self._is_held or self.is_over or self.connection.clogged)

    def flush(self) -> None:
        """Write what is queued, unless it is held."""
        out = self._out
        if out is None or self._is_held:
            return
        self._is_patient = False
        self._out = None
        if len(out) == 1:
            self.connection.write(out[0])
        elif out:
            self.connection.write_all(out)

    def give(self, stanzas: Iterable[bytes]) -> asyncio.Future[None] | None:
        """Send a burst: the stanzas are drawn as fast as the client takes them and in slices of time, so
        they may look at how things stand by then. Bursts come one after the other; what is sent does not wait
        for them. What is returned is done when all were drawn, or the session is over.
        """
        return self.give_pieces(zip(stanzas, strict=True))

    def give_pieces(self, pieces: Iterable[Sequence[bytes]]) -> asyncio.Future[None] | None:
        """The same with several stanzas drawn together, of no more than LARGE bytes but for the last of them:
        cheaper where it costs next to nothing to make one.
        """
        if self.is_over:
            return None
        if self._bursts is None:
            self._bursts = Bursts()
        burst, bursts = Burst(iter(pieces)), self._bursts
        bursts.queue.append(burst)
        if len(bursts.queue) == 1 and self.draw(self._cork.clock() + SLICE_SECONDS):
            self._call_on(bursts)
        return burst.done() if burst in bursts.queue else None

    def draw(self, end: float) -> bool:
        """Queue what bursts hold until `end`, or until the client has to read first; whether to go on in the
        next turn.
        """
        bursts = self._bursts
        if bursts is None:
            return False
        queue, clock, size = bursts.queue, self._cork.clock, 0
        bursts.is_due = False
        while queue:
            if self._is_held or self.connection.clogged:
                return False
            if clock() > end:
                bursts.is_due = True
                return True
            piece = queue[0].next()
            if piece is None:
                queue.popleft().finish()
                continue
            self._queue(piece)
            size += len(piece[0]) if len(piece) == 1 else sum(map(len, piece))
            if size > LARGE:
                self.flush()
                size = 0
        self._bursts = None
        return False

    def drained(self) -> None:
        """The connection takes more: go on with bursts."""
        if self._bursts is not None and not self._bursts.is_due:
            self._call_on(self._bursts)

    def _call_on(self, bursts: Bursts) -> None:
        bursts.is_due = True
        self._cork.add_giver(self)

    def broadcast_of(self, stanza: Stanza) -> Broadcast:
        """An undirected presence of this session, ready to be copied."""
        head = self.presence_head
        if stanza.to is None and stanza.raw.startswith(head):
            return Broadcast(head, stanza.raw[len(head) :])
        raw = build.restamp(stanza, from_=None, to=None)
        return Broadcast(build.start_tag("presence", {"from": self.full}), raw[9:])

    def directed_to(self, full: str) -> list[tuple[str, bytes]]:
        """The directed presence that it sent to another session or its account, each with the address, the
        last one last; where the stanza was not kept, one that says no more than that it is available.
        """
        account = full.partition("/")[0]
        shown = self.directed.of(account) if self.directed is not None else {}
        bare = self.presence_head + to_stamp(account) + b"/>"
        return [(address, raw or bare) for address, raw in shown.items() if address in (account, full)]

    def __repr__(self) -> str:
        return f"<Session {self.full}>"


class LiveAccount:
    """A local account with at least one session.

    `roster` is loaded by the first roster request or initial presence. `available` are the sessions with
    presence, `takers` those among them that take messages to the bare JID: the highest priority, not
    negative. `targets` are the same, and `audience` the available ones, unless it `is_split`: it has sessions
    on other nodes, or messages on their way to some. `to_stamp` is ` to='bare JID'` in bytes.

    `blocks` are the addresses that it bars (XEP-0191). Where there are any it has no `targets` and no
    `audience` either: it has to be asked who may reach it (`bars`).
    `carbons` are the sessions that want copies of messages (XEP-0280). Where others of the account may send
    or get any, on this node or because some want copies on another one, it `is_copied`: then it has no
    `targets` either. `exchanged` are its last messages that were copied, by sender, account of the
    receiver and id, and for whom alone.
    """

    __slots__ = (
        "account",
        "audience",
        "available",
        "blocks",
        "carbons",
        "exchanged",
        "is_copied",
        "is_copied_elsewhere",
        "is_split",
        "roster",
        "sessions",
        "takers",
        "targets",
        "to_stamp",
    )

    def __init__(self, account: str, blocks: frozenset[str] = NOBODY) -> None:
        self.account = account
        self.blocks = blocks
        self.sessions: tuple[Session, ...] = ()
        self.roster: Roster | None = None
        self.available: tuple[Session, ...] = ()
        self.audience: tuple[Session, ...] = ()
        self.takers: tuple[Session, ...] = ()
        self.targets: tuple[Session, ...] = ()
        self.is_split = False
        self.carbons: tuple[Session, ...] = ()
        self.exchanged: dict[tuple[str, str, str | None], tuple[str, ...]] | None = None
        self.is_copied = False
        self.is_copied_elsewhere = False
        self.to_stamp = to_stamp(account)

    def refresh(self) -> None:
        """Recompute `available` and `targets` after a session's presence or priority changed. What was sent
        before is written before: a connection may take note of who else was sent it.
        """
        for session in self.available:
            session.flush()
        if len(self.sessions) == 1:
            only = self.sessions[0]
            self.available = self.sessions if only.presence is not None else ()
            self.takers = self.available if only.takes_messages and only.priority >= 0 else ()
        else:
            self.available = tuple(s for s in self.sessions if s.presence is not None)
            takers = [s for s in self.available if s.takes_messages]
            top = max((s.priority for s in takers), default=-1)
            self.takers = tuple(s for s in takers if s.priority == top) if top >= 0 else ()
        self.audience = () if self.blocks or self.is_split else self.available
        self.targets = self.takers if self.is_plain and not self.is_split else ()

    @property
    def is_alone(self) -> bool:
        """Whether nobody has anything to show a session that became available, it being the only one."""
        roster = self.roster
        return roster is not None and not (roster.following or roster.requests or self.available[1:])

    @property
    def open_to(self) -> tuple[Session, ...]:
        """What `takers` would be if no message were on a detour."""
        if len(self.available) == 1:
            only = self.available[0]
            return self.available if only.priority >= 0 and not only.is_flushing else ()
        takers = [s for s in self.available if s.priority >= 0 and not s.is_flushing]
        top = max((s.priority for s in takers), default=-1)
        return tuple(s for s in takers if s.priority == top)

    @property
    def kept_for(self) -> Sequence[Session]:
        """Who is to be given what was stored, one after the other: the rest, too, for messages go to them
        while the first is being given it, and what he does not take comes to them before anything newer.
        """
        willing = [session for session in self.available if session.priority >= 0]
        return sorted(willing, key=lambda session: -session.priority)

    def split(self, is_split: bool) -> None:
        """Whether other nodes have a say in where its messages go, and are shown what it is shown."""
        self.is_split = is_split
        self.audience = () if self.blocks or is_split else self.available
        self.targets = self.takers if self.is_plain and not is_split else ()

    @property
    def is_plain(self) -> bool:
        """Whether nobody has to be asked for its messages, and nobody wants copies."""
        return not self.blocks and not self.is_copied

    def guard(self, blocks: frozenset[str]) -> None:
        """From now on it bars these addresses, and no others."""
        self.blocks = Asked(blocks) if isinstance(self.blocks, Asked) else blocks
        self._open()

    def ask(self, *, is_asked: bool) -> None:
        """Whether it has to be asked who may reach and see it, though it may bar nobody."""
        if isinstance(self.blocks, Asked) != is_asked:
            self.blocks = Asked(self.blocks) if is_asked else barred(self.blocks)
            self._open()

    def _open(self) -> None:
        for session in self.sessions:
            session.is_open = session.takes_messages and self.is_plain
        self.refresh()

    def bars(self, other: str) -> bool:
        """Whether it bars an address in normal form."""
        return bool(self.blocks) and bars(self.account, self.blocks, other)

    def count_copies(self, *, elsewhere: bool) -> None:
        """See who wants copies now, here and on other nodes."""
        self.carbons = tuple(s for s in self.sessions if s.copies_since)
        self.is_copied_elsewhere = elsewhere
        is_copied = elsewhere or (bool(self.carbons) and len(self.sessions) > 1)
        if is_copied == self.is_copied:
            return
        self.is_copied, self.exchanged = is_copied, None
        for session in self.sessions:
            session.has_copies = is_copied
        self._open()

    def update_roster(self, roster: Roster) -> None:
        """Hold this roster unless a newer one is held."""
        if self.roster is None or roster.version >= self.roster.version:
            self.roster = roster


def to_stamp(jid: str) -> bytes:
    """What addresses a copy: ` to='...'`."""
    return f" to='{build.escape_attribute(jid)}'".encode()


class Sessions:
    """The sessions of this node by full JID, and what routing looks up: `targets` by full JID, `accounts` by
    bare JID. `cluster` has those of other nodes. `on_removed` is told the full JID of each session that is
    over. `rounds` does what takes long for many of them.
    """

    __slots__ = ("_cork", "_now", "accounts", "by_full", "cluster", "on_removed", "rounds", "targets")

    def __init__(self, cork: Cork, now: Callable[[], float]) -> None:
        self.by_full: dict[str, Session] = {}
        self.targets: dict[str, Target] = {}
        self.accounts: dict[str, LiveAccount] = {}
        self.cluster: Cluster = ONE_NODE
        self.on_removed: Callable[[str], None] = nobody_asks
        self.rounds = Rounds(cork.call_soon, cork.clock)
        self._cork = cork
        self._now = now

    @property
    def is_writing(self) -> bool:
        """Whether any of them, or another node, is to be written to at the end of this turn of the loop."""
        return self._cork.is_due

    def add(
        self,
        login: Login,
        resource: str,
        connection: Connection,
        lang: str,
        blocks: frozenset[str] = NOBODY,
    ) -> Session:
        """Bind a resource that is free. If it is the first of its account, that bars these addresses."""
        account = login.account
        live = self.accounts.get(account)
        if live is None:
            live = self.accounts[account] = LiveAccount(account, blocks)
        session = Session(live, resource, connection, self._cork, lang, self._now(), login)
        assert session.full not in self.by_full, session.full
        self.by_full[session.full] = self.targets[session.full] = session
        live.sessions = (*live.sessions, session)
        if self.cluster:
            live.split(self.cluster.concerns(account))
            live.count_copies(elsewhere=self.cluster.wants_copies(account))
        elif live.carbons:
            live.count_copies(elsewhere=False)
        return session

    def want_copies(self, session: Session, wants: bool) -> None:
        """Whether a session is sent copies of its account's messages from now on (XEP-0280)."""
        if bool(session.copies_since) != wants and not session.is_over:
            session.copies_since = int(self._now()) + 1 if wants else 0
            session.live.count_copies(elsewhere=session.live.is_copied_elsewhere)
            self.cluster.wanted(session)

    def remove(self, session: Session) -> None:
        """Forget a session whose presence was withdrawn already."""
        live = session.live
        del self.by_full[session.full]
        live.sessions = tuple(other for other in live.sessions if other is not session)
        if self.targets.get(session.full) is session:
            del self.targets[session.full]
        session.end()
        self.on_removed(session.full)
        if live.sessions:
            if live.carbons:
                live.count_copies(elsewhere=live.is_copied_elsewhere)
            live.refresh()
        else:
            del self.accounts[session.account]

    def release(self) -> None:
        """Give up the room of those who have gone: a dict keeps the table of its greatest size."""
        for table in (self.by_full, self.targets, self.accounts):
            left = [*table.items()]
            table.clear()
            table.update(left)

    def of(self, account: str) -> list[Session]:
        """The account's sessions on this node."""
        live = self.accounts.get(account)
        return list(live.sessions) if live else []

    def takes_messages(self, account: str) -> bool:
        """Whether a message to the account would be delivered at once, here or elsewhere (RFC 6121 8.5.2)."""
        live = self.accounts.get(account)
        return (live is not None and bool(live.open_to)) or self.cluster.takes_messages(account)

    def is_available(self, account: str) -> bool:
        """Whether any resource of the account is, here or elsewhere."""
        live = self.accounts.get(account)
        return (live is not None and bool(live.available)) or self.cluster.is_available(account)


def nobody_asks(full: str) -> None:
    """Nothing waits for a session."""
