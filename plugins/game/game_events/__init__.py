"""Events of a game's back ends: "resource R is at version V now", for players or groups of players
(`urn:xmppd:game-events:0`). The last version is kept for who is away, and no older one overtakes a newer one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol
from xml.etree.ElementTree import Element

from xmppd import hooks
from xmppd.plugin import (
    SELF,
    SERVER,
    Counter,
    Emitter,
    EventField,
    Histogram,
    Kept,
    Person,
    Plugin,
    Request,
    Session,
    SessionSlot,
    StanzaError,
    Table,
    Uses,
    cluster_signal,
    iq_set,
    takes_at_bind,
)

from .commands import EventCommands
from .config import GameEventsConfig
from .pushing import Pushes
from .stanzas import DISABLE, ENABLE, HAVE, NS, RESOURCE, Event, message, together, version_of

Row = Mapping[str, Any]

DAY: Final = 86_400.0
MOST_SEEN: Final = 256
"""Resources of which it is remembered what a session was sent last."""
ROWS: Final = 5_000
"""Kept rows that are looked at when a player comes."""
AT_ONCE: Final = 20
"""Sessions that are shown what they missed at a time."""


class Names(Protocol):
    """What is asked of the plugin `players`."""

    def __bool__(self) -> bool: ...

    async def account_of(self, text: str) -> str | None: ...


class GameEvents(EventCommands, Plugin):
    """Each node writes rows of its own, so that nobody has to wait for anybody: of those of a resource the
    one with the largest version is it.
    """

    Config = GameEventsConfig
    features: ClassVar = {SERVER: (NS,)}
    held = Table(
        partition=("account",),
        cluster=("resource", "node"),
        columns={"version": "int", "payload": "text", "at": "timestamp"},
        ttl=DAY,
        person=Person("account"),
    )
    members = Table(
        partition=("name",),
        cluster=("account",),
        columns={"at": "timestamp"},
        person=Person(mentions={"account": "deleted"}),
    )
    groups = Table(
        partition=("account",),
        cluster=("name",),
        columns={"at": "timestamp"},
        person=Person("account"),
    )
    players: Uses[Names] = Uses("players")
    wants = SessionSlot(False)
    seen: SessionSlot[dict[str, int]] = SessionSlot(factory=dict)
    busy: Kept[dict[tuple[str, str], asyncio.Future[None]]] = Kept(dict)
    lost: Kept[set[str]] = Kept(set)
    pushed = Counter("Events that back ends pushed.")
    recipients = Counter("Players that they were for.")
    stale = Counter("Players who had a newer version already.")
    given = Counter("Copies that sessions were given.")
    replayed = Counter("Events that sessions were given when they came.")
    seconds = Histogram("Seconds from a push to its answer.")
    told = Emitter(
        "game-event.pushed",
        "A back end pushed a version of a resource to players.",
        fields={
            "resource": EventField("text", "what has another version"),
            "version": EventField("number", "which one"),
            "recipients": EventField("number", "how many players it was for"),
            "reached": EventField("number", "how many of them a session has it of"),
        },
        example={"resource": "store/offers", "version": 7, "recipients": 2, "reached": 1},
        is_asked=True,
        key=("resource", "version"),
    )

    async def start(self) -> None:
        """Nothing is under way."""
        self.pushes = Pushes(self)
        self.by_player = self.groups.writer(("account", "name", "at"))
        self.by_group = self.members.writer(("name", "account", "at"))

    # clients

    @iq_set(ENABLE, SELF, SERVER)
    async def enable(self, request: Request) -> None:
        """The client wants events from now on, and behind the answer what it missed; it may say which
        versions it has.
        """
        session = self._asking(request)
        self._begin(session, request.payload)
        last = await self._last(session.account)
        self.spawn(self._show(session, last))

    @iq_set(DISABLE, SELF, SERVER)
    def disable(self, request: Request) -> None:
        """It wants none any more."""
        self.wants[self._asking(request)] = False

    @takes_at_bind(ENABLE, NS)
    def enable_at_bind(self, session: Session, tree: Element | None) -> bytes:
        """The same together with the resource (XEP-0386)."""
        if tree is not None:
            self._begin(session, tree)
            self.spawn(self.replay(session))
        return b""

    def _asking(self, request: Request) -> Session:
        if not isinstance(request.origin, Session):
            raise StanzaError("forbidden")
        return request.origin

    def _begin(self, session: Session, tree: Element) -> None:
        haves = tree.findall(HAVE)
        if len(haves) > MOST_SEEN:
            raise StanzaError("policy-violation", f"Name at most {MOST_SEEN} resources.")
        seen: dict[str, int] = {}
        for have in haves:
            resource, version = have.get("resource", ""), version_of(have.get("version", ""))
            if version is None or not RESOURCE.fullmatch(resource):
                raise StanzaError("bad-request", "Each <have/> names a resource and its version.")
            seen[resource] = version
        self.seen[session] = seen
        self.wants[session] = True

    # sessions that come

    @hooks.session_resumed
    def go_on(self, session: Session) -> None:
        """It comes from another node, and nobody could reach it on the way."""
        if self.wants[session]:
            self.spawn(self.replay(session))

    async def replay(self, session: Session) -> None:
        """Show a session the last versions of what it has not; StoreError. It wants events already, so what
        comes meanwhile is not missed.
        """
        await self._show(session, await self._last(session.account))

    async def _last(self, account: str) -> list[Event]:
        """The last version of each resource, of which something was heard last at the end."""
        last: dict[str, Row] = {}
        for row in (await self.held.scan(account, limit=ROWS)).rows:
            known = last.get(row["resource"])
            if known is None or row["version"] > known["version"]:
                last[row["resource"]] = row
        rows = sorted(last.values(), key=lambda row: float(row["at"]))[-self.config.resources :]
        return [Event(row["resource"], row["version"], row["payload"] or "") for row in rows]

    async def _show(self, session: Session, last: Sequence[Event]) -> None:
        if session.is_over or not self.wants[session]:
            return
        events = [event for event in last if self._is_new(session, event.resource, event.version)]
        domain = session.account.rpartition("@")[2]
        for piece in together(events):
            head, tail = message(domain, piece)
            session.send(head + session.live.to_stamp + tail)
        self.replayed.inc(len(events))

    def _is_new(self, session: Session, resource: str, version: int) -> bool:
        """Whether a session has no such version yet, nor a newer one; from now on it has."""
        seen = self.seen[session]
        before = seen.pop(resource, -1)
        seen[resource] = max(before, version)
        if len(seen) > MOST_SEEN:
            del seen[next(iter(seen))]
        return version > before

    # what is told

    def deliver(self, accounts: Sequence[str], event: Event) -> tuple[list[int], int]:
        """Give an event to the sessions here that want it and have none as new: the places of the accounts
        that have it now, and how many copies there were.
        """
        places: list[int] = []
        copies, raw, parts = 0, b"", {}
        for place, account in enumerate(accounts):
            has = False
            for session in self.server.sessions(account):
                if not self.wants[session]:
                    continue
                has = True
                if self._is_new(session, event.resource, event.version):
                    domain = account.rpartition("@")[2]
                    if domain not in parts:
                        raw = raw or event.xml()
                        parts[domain] = message(domain, [raw])
                    head, tail = parts[domain]
                    session.send_copy(head + session.live.to_stamp + tail)
                    copies += 1
            if has:
                places.append(place)
        self.given.inc(copies)
        return places, copies

    @cluster_signal
    def deliver_for(self, node: str, number: int, accounts: list[str], event: list[str | int]) -> None:
        """Another node has it for some accounts, and asks who has it."""
        resource, version, payload = event
        told = Event(str(resource), int(version), str(payload))
        places, copies = self.deliver(accounts, told)
        self.delivered.tell_node(node, self.server.node, number, places, copies)

    @cluster_signal
    def delivered(self, node: str, number: int, places: list[int], copies: int) -> None:
        """What that node answers."""
        self.pushes.answered(node, number, places, copies)

    # nodes that were away

    @hooks.node_left
    def left(self, node: str) -> None:
        """It stops: what is lost now will come back as another one."""
        self.lost.discard(node)
        self.pushes.lost(node)

    @hooks.node_lost
    def lose(self, node: str) -> None:
        """It may be cut off, and tell its own sessions what these here are not told."""
        self.lost.add(node)
        self.pushes.lost(node)

    @hooks.node_met
    def meet(self, node: str) -> None:
        """If it was, all sessions here are shown what they missed."""
        if node in self.lost:
            self.lost.discard(node)
            self.spawn(self._replay_all())

    async def _replay_all(self) -> None:
        sessions = [session for session in self.server.online() if self.wants[session]]
        for start in range(0, len(sessions), AT_ONCE):
            some = sessions[start : start + AT_ONCE]
            await asyncio.gather(*(self.replay(session) for session in some if not session.is_over))

    # accounts that go

    @hooks.account_removed
    async def forget(self, account: str) -> None:
        """Whoever has the name next is told nothing, and is in no group."""
        await self.held.delete(account)
        for row in (await self.groups.scan(account)).rows:
            await self.members.delete(row["name"], account)
        await self.groups.delete(account)

    @hooks.account_moved
    async def follow(self, old: str, new: str) -> None:
        """Groups have it by its new address; told on all nodes, so it is done more than once."""
        for row in (await self.groups.scan(new)).rows:
            await self.members.put({"name": row["name"], "account": new, "at": row["at"]})
            await self.members.delete(row["name"], old)
