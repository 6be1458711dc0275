"""What becomes of stanzas that the client of a session had not acknowledged when it ended (XEP-0198 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from xmppd.core.begun import begun
from xmppd.core.cluster import Cluster, RemoteFellow
from xmppd.core.delivery import KEEPABLE, MESSAGE_TYPES
from xmppd.core.fates import DROPPED, Fates
from xmppd.core.lastseen import stamped
from xmppd.core.later import Later
from xmppd.core.managed import APART, Managed
from xmppd.core.origin import Host, Origin
from xmppd.core.outstanding import Unacked
from xmppd.core.sessions import Session
from xmppd.errors import StanzaError
from xmppd.jid import domain_of
from xmppd.xml import build
from xmppd.xml.stanza import Stanza, read

GONE: Final = "Its receiver has gone."

NOBODY: Final[Mapping[RemoteFellow, int]] = MappingProxyType({})


class Routes(Protocol):
    """The router, as far as it is needed here."""

    def send(self, origin: Origin, stanza: Stanza) -> Awaitable[None] | None:
        """Process a stanza that is known to come from `origin`."""

    def reroute(self, origin: Origin, message: Stanza) -> Awaitable[None] | None:
        """Find another receiver for a message."""


class Sender(Host):
    """Who sent what is left, wherever he is: errors go there."""

    __slots__ = ("_receiver", "_routes", "_spawn")

    def __init__(self, full: str, receiver: str, routes: Routes, spawn: Callable[[Any], object]) -> None:
        super().__init__(full)
        self._receiver = receiver
        self._routes = routes
        self._spawn = spawn

    def send(self, data: bytes) -> None:
        """Route an error, in the name of who did not receive the stanza; nobody is told of another one."""
        self._spawn(_sent(self._routes, Host(self._receiver), data))


async def _sent(routes: Routes, origin: Origin, data: bytes) -> None:
    try:
        waiting = routes.send(origin, read(data))
        if waiting is not None:
            await waiting
    except StanzaError:
        return


class Copied(Protocol):
    """Who has copies of messages (XEP-0280), as far as it is needed here."""

    def had(self, full: str, stanza: Stanza, second: int) -> bool | None:
        """Whether another session than that one has a copy; None: one of another node may."""


class Message(NamedTuple):
    """One that is left, and what has to be asked on other nodes before it goes on: whether these `fellows`
    see to it, and whether it `may_be_copied` there.
    """

    message: Stanza
    sender: str
    second: int
    fellows: tuple[RemoteFellow, ...] = ()
    may_be_copied: bool = False


class Answers(NamedTuple):
    """Who has what several were sent before some second, or sees to it, and of which seconds somebody has the
    copies.
    """

    fellows: Mapping[RemoteFellow, int] = NOBODY
    seconds: Collection[int] = ()


class LeftOver:
    """Messages that may be kept go by the rules to sessions that were not sent them, or to whoever keeps
    them, unless another one has a copy (XEP-0280); who asked for something is told that there is no answer;
    all else is dropped. What is kept for the account already `is_left` to whoever is there.
    """

    def __init__(
        self,
        routes: Routes,
        copied: Copied,
        is_left: Callable[[str], None],
        cluster: Callable[[], Cluster],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        fates: Fates,
    ) -> None:
        self._under_way: dict[str, set[asyncio.Task[None]]] = {}
        self._fates = fates
        self._routes = routes
        self._copied = copied
        self._is_left = is_left
        self._cluster = cluster
        self._spawn = spawn

    def take(self, full: str, left: Iterable[Unacked]) -> None:
        """See to all of a session, in order, and before anything that comes now; what has to be awaited ends
        by itself.
        """
        unacked = [*left]
        if any(one.is_stored for one in unacked):
            self._is_left(full.partition("/")[0])
        messages = [
            message
            for one in unacked
            if not one.is_stored and (message := self._looked_at(full, one)) is not None
        ]
        rest = begun(self._take_all(full, messages)) if messages else None
        if rest is not None:
            account, task = full.partition("/")[0], self._spawn(rest)
            self._under_way.setdefault(account, set()).add(task)
            task.add_done_callback(lambda task: self._is_done(account, task))

    def _is_done(self, account: str, task: asyncio.Task[None]) -> None:
        tasks = self._under_way[account]
        tasks.remove(task)
        if not tasks:
            del self._under_way[account]

    async def seen_to(self, account: str) -> None:
        """Wait until what sessions of an account have left so far is where it goes, or refused."""
        if tasks := self._under_way.get(account):
            await asyncio.wait(tasks)

    async def _take_all(self, full: str, left: Sequence[Message]) -> None:
        asking, answers = begun(self._ask(full.partition("/")[0], left)), Answers()
        under_way = []
        for one in left:
            if one.fellows or one.may_be_copied:
                if not isinstance(asking, Answers):
                    asking = await asking
                answers = asking
            is_copied = one.may_be_copied and one.second in answers.seconds
            if is_copied or any(one.second < answers.fellows.get(fellow, 0) for fellow in one.fellows):
                continue
            end = self._reroute(full, one)
            if isinstance(end, Later):
                under_way.append(end)
            elif end is not None:
                await end
        for end in under_way:
            await end

    def _reroute(self, full: str, one: Message) -> Awaitable[None] | None:
        origin = Sender(one.sender, full, self._routes, self._spawn)
        again = readdressed(one.message, full.partition("/")[0], one.second)
        return self._routes.reroute(origin, again)

    def _looked_at(self, full: str, unacked: Unacked) -> Message | None:
        """What is to be done with a message, if anything; what is none is dealt with."""
        raw = unacked.raw
        if raw.startswith(b"<message"):
            return self._message(full, unacked)
        if raw.startswith(b"<iq"):
            iq = read(raw)
            sender = iq.attrs.get("from", "")
            if iq.type in ("get", "set") and sender not in ("", domain_of(full)):
                origin = Sender(sender, full, self._routes, self._spawn)
                origin.send(build.error_reply(iq, sender, StanzaError("service-unavailable", GONE)))
        return None

    def _message(self, full: str, unacked: Unacked) -> Message | None:
        message, account = read(unacked.raw), full.partition("/")[0]
        kind = message.type if message.type in MESSAGE_TYPES else "normal"
        sender = message.attrs.get("from", account)
        if kind not in KEEPABLE or sender == account:  # the account's own are for this session only
            self._fates.note(message, DROPPED, "left-over", "its session ended before its client had it")
            return None
        others = unacked.others if message.to == account else ()
        if any(isinstance(other, Session) and has_it(other, unacked.second) for other in others):
            return None
        had = self._copied.had(full, message, unacked.second)
        if had:
            return None
        fellows = tuple(other for other in others if not isinstance(other, Session))
        return Message(message, sender, unacked.second, fellows, had is None)

    async def _ask(self, account: str, left: Sequence[Message]) -> Answers:
        """Ask other nodes once for all: what both were sent may have been left by others just now, too."""
        fellows = {fellow for one in left for fellow in one.fellows}
        seconds = {one.second for one in left if one.may_be_copied}
        cluster = self._cluster()
        copies = cluster.had_copies(account, seconds) if seconds else None
        seen_to = begun(cluster.see_to_it(account, fellows)) if fellows else NOBODY
        had = await copies if copies is not None else ()
        return Answers(await seen_to if isinstance(seen_to, Awaitable) else seen_to, had)


def has_it(session: Session, second: int) -> bool:
    """Whether a session that was sent something in that second, too, has it still, and sees to it when it
    ends: itself, or what it became on another node; or its client acknowledged it before it ended.
    """
    managed: Managed | None = session.managed
    if managed is None:
        return not session.is_over
    return not session.is_over or managed.is_given or second + APART < managed.unread_from


def readdressed(message: Stanza, account: str, second: int) -> Stanza:
    """A message that a session of the account was sent in that second and did not get: for any of its
    sessions, with a stamp unless it has one of ours.
    """
    raw = stamped(message, domain_of(account), second)
    attrs = {**message.attrs, "to": account}
    head = build.start_tag("message", attrs)
    return Stanza("message", attrs, head + raw[message.tail :], len(head))
