"""Announcements to all or to a part, and a message of the day (after XEP-0133 4.23 to 4.26).

By command, or by a message from one of the configured admins to `<domain>/announce/online` (to all online),
`/announce/motd` (to all: now, or when they come), `/announce/motd/update` (only to those who come) or
`/announce/motd/delete`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any
from xml.etree.ElementTree import Element

from xmppd import hooks, ns
from xmppd.plugin import (
    AccountAddress,
    Jid,
    Person,
    Plugin,
    PluginConfig,
    Session,
    SessionSlot,
    Stanza,
    StanzaError,
    Table,
    begun,
    cluster_signal,
    command,
    element,
    every,
    nobody,
    serialize,
)

from .commands import AnnounceCommands, sendable
from .crier import BODY, KIND, RUNNING, SUBJECT, Announcement, Crier, of_row

CROWD = 200
"""How many sessions are shown the message of the day before others get their turn."""
LOOK_SECONDS = 5.0
"""How often one node of all looks whether an announcement is told by nobody."""
LEASE_SECONDS = 10.0
"""A node that wrote nothing of an announcement for so long has died."""
LEAVE_SECONDS = 2.0
"""How long an announcement may take to be left to the next instance, or node."""


class AnnounceConfig(PluginConfig):
    """`admins`: the accounts whose messages to `<domain>/announce/...` are announced."""

    admins: frozenset[AccountAddress] = frozenset()


@dataclass(frozen=True)
class Notice:
    """Something to say to everybody, serialised once for each domain: what stands before `to`, and behind."""

    id: str
    copies: dict[str, tuple[bytes, bytes]]

    def show(self, session: Session) -> None:
        """Send a copy to one session."""
        head, tail = self.copies[session.account.rpartition("@")[2]]
        session.send(head + session.live.to_stamp + tail)


class Announce(AnnounceCommands, Plugin):
    """The message of the day is shown once to each account, to the resource that is available first."""

    Config = AnnounceConfig
    motds = Table(
        partition=("name",),
        columns={"id": "text", "subject": "text", "body": "text"},
        person=nobody("what operators say to all"),
    )
    announcements = Table(
        partition=("kind",),
        cluster=("id",),
        columns={
            "text": "text",
            "subject": "text",
            "type": "text",
            "segment": "text",
            "pace": "int",
            "begun": "timestamp",
            "state": "text",
            "holder": "text",
            "node": "text",
            "epoch": "int",
            "beat": "int",
            "place": "text",
            "told": "int",
            "sent": "int",
            "refused": "int",
            "total": "int",
            "ended": "timestamp",
        },
        person=Person(mentions={"place": "kept", "segment": "kept"}),
    )
    receivers = Table(
        partition=("announcement",),
        cluster=("number",),
        columns={"number": "int", "account": "text"},
        ttl=7 * 86400.0,
        person=Person(mentions={"account": "deleted"}),
    )
    seen = Table(partition=("account",), columns={"id": "text"}, person=Person("account"))
    shown = SessionSlot("")

    async def start(self) -> None:
        """Take up the message of the day where it was left."""
        self.criers: dict[str, Crier] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._silent: dict[str, tuple[tuple[object, ...], float]] = {}
        row = await self.motds.get("motd")
        self._motd: Notice | None = self._notice(row["id"], row["subject"], row["body"]) if row else None
        self._deeds: dict[str, Callable[[str, str], Coroutine[Any, Any, object]]] = {
            "announce/online": self.announce,
            "announce/motd": self._set_motd,
            "announce/motd/update": self._update_motd,
            "announce/motd/delete": self._delete_motd,
        }

    async def stop(self) -> None:
        """Let the next instance, or another node, go on with what is being told."""
        for crier in self.criers.values():
            crier.leave()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LEAVE_SECONDS)

    # the other doors

    @command("Set the message of the day, shown once to everybody: now, or at their next login")
    async def motd(self, text: Annotated[str, "what to say"]) -> dict[str, str]:
        """It replaces the one before."""
        await self._set_motd("", sendable(text))
        return {"motd": text}

    @command("Remove the message of the day")
    async def clear(self) -> dict[str, bool]:
        """Whether there was one."""
        had = self._motd is not None
        await self._delete_motd("", "")
        return {"removed": had}

    @hooks.server_message
    def heed(self, session: Session, message: Stanza) -> Stanza | Coroutine[Any, Any, hooks.Drop]:
        """A message to one of our addresses; from others than admins it is forbidden."""
        if not message.to or "/announce/" not in message.to:
            return message
        to = Jid.parse(message.to)
        if to.local or to.domain not in self.server.domains or to.resource not in self._deeds:
            return message
        if session.account not in self.config.admins:
            raise StanzaError("forbidden")
        return self._heed(self._deeds[to.resource], message)

    async def _heed(
        self, do: Callable[[str, str], Coroutine[Any, Any, object]], message: Stanza
    ) -> hooks.Drop:
        subject, body = message.xml.findtext(SUBJECT) or "", message.xml.findtext(BODY) or ""
        if not body and do != self._delete_motd:
            raise StanzaError("bad-request", "There is nothing to announce.")
        await do(subject, body)
        return hooks.DROP

    # what is done

    async def announce(self, subject: str, body: str) -> int:
        """To all who are online, at once; how many copies there were."""
        accounts: dict[str, list[str]] = {}
        for account in self.server.connected():
            accounts.setdefault(account.rpartition("@")[2], []).append(account)
        copies = 0
        for domain, listeners in accounts.items():
            copies += await self.server.send_many(listeners, headline(domain, subject, body))
        return copies

    # who tells an announcement

    async def known(self) -> list[Announcement]:
        """All that are remembered, the oldest first; StoreError."""
        return [of_row(row) for row in (await self.announcements.scan(KIND)).rows]

    async def begin(self, about: Announcement) -> None:
        """A new one, which this node tells; StoreError."""
        mine = replace(about, holder=self.server.process, node=self.server.node, epoch=1)
        await self.announcements.put_if(mine.row(), None)
        self._tell(mine)

    def _tell(self, about: Announcement) -> None:
        crier = self.criers[about.id] = Crier(self, about)
        task = self.spawn(crier.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self.criers.pop(about.id, None))

    @cluster_signal
    def ended(self, id: str) -> None:
        """An announcement is cancelled."""
        if (crier := self.criers.get(id)) is not None:
            crier.cancel()

    def is_held(self, about: Announcement) -> bool:
        """Whether a node that is there tells it, for all that is known here."""
        if about.node in self.server.other_nodes():
            return bool(about.holder)
        return about.holder == self.server.process and about.id in self.criers

    @every(LOOK_SECONDS, once=True)
    async def look(self) -> None:
        """Go on with what nobody tells any more."""
        running = [one for one in await self.known() if one.state == RUNNING and one.id not in self.criers]
        self._silent = {one.id: self._silence_of(one) for one in running}
        for one in running:
            if self._is_left(one):
                await self._take(one)

    def _silence_of(self, about: Announcement) -> tuple[tuple[object, ...], float]:
        """What was written of it last, and since when that has not changed, by this node's clock: clocks are
        never compared.
        """
        mark = (about.holder, about.epoch, about.beat)
        before = self._silent.get(about.id)
        return before if before is not None and before[0] == mark else (mark, self.scope.clock())

    def _is_left(self, about: Announcement) -> bool:
        if about.holder in ("", self.server.process) or not self.server.has_other_nodes:
            return True
        return self.scope.clock() - self._silent[about.id][1] >= LEASE_SECONDS

    async def _take(self, about: Announcement) -> None:
        mine = replace(
            about, holder=self.server.process, node=self.server.node, epoch=about.epoch + 1, beat=0
        )
        expect = {"epoch": about.epoch, "beat": about.beat, "state": RUNNING}
        if await self.announcements.put_if(mine.row(), expect) and about.id not in self.criers:
            self.log.info("announcement-resumed", extra={"announcement": about.id, "told": about.told})
            self._tell(mine)

    # the message of the day

    async def _set_motd(self, subject: str, body: str) -> None:
        await self._update_motd(subject, body)
        self.show.tell()

    async def _update_motd(self, subject: str, body: str) -> None:
        id = secrets.token_hex(8)
        await self.motds.put({"name": "motd", "id": id, "subject": subject, "body": body})
        self.take_up.tell(id, subject, body)

    async def _delete_motd(self, subject: str, body: str) -> None:
        self.take_up.tell("", "", "")
        await self.motds.delete("motd")

    @cluster_signal
    def take_up(self, id: str, subject: str, body: str) -> None:
        """The message of the day is another one now, or there is none (`id` is empty)."""
        self._motd = self._notice(id, subject, body) if id else None

    @cluster_signal
    def show(self) -> None:
        """Show it to everybody who is on this node."""
        self.server.spawn(self._show())

    async def _show(self) -> None:
        for crowd in crowds(self._listeners()):
            await asyncio.gather(*map(self._remind, crowd))

    @hooks.session_available
    def remind(self, session: Session) -> Awaitable[None] | None:
        """Everybody who logs in passes here, and nearly all have seen it."""
        return begun(self._remind(session)) if takes_messages(session) else None

    async def _remind(self, session: Session) -> None:
        """Show the message of the day, once to an account, also when two of its resources come at once."""
        motd = self._motd
        if motd is None or self.shown[session] == motd.id:
            return
        self.shown[session] = motd.id
        if session.is_anonymous or await self._is_first(session, motd.id):
            motd.show(session)

    async def _is_first(self, session: Session, id: str) -> bool:
        """Note that the account sees this message; whether it had not seen it before."""
        account = session.account
        async with self.server.writing(account, session) as exists:
            if not exists:
                return False
            before = await self.seen.get(account)
            if before is not None and before["id"] == id:
                return False
            return await self.seen.put_if({"account": account, "id": id}, before and {"id": before["id"]})

    @hooks.account_removed
    async def forget(self, account: str) -> None:
        """Whoever takes the name next has seen nothing."""
        await self.seen.delete(account)

    def _listeners(self) -> list[Session]:
        return [session for session in self.server.online() if takes_messages(session)]

    def _notice(self, id: str, subject: str, body: str) -> Notice:
        copies = {}
        for domain in self.server.domains:
            head, bracket, rest = serialize(headline(domain, subject, body)).partition(b">")
            copies[domain] = head, bracket + rest
        return Notice(id, copies)


def takes_messages(session: Session) -> bool:
    """Whether it is available, and not by a negative priority out of the way (RFC 6121 4.7.2.3)."""
    return session.presence is not None and session.priority >= 0


def headline(domain: str, subject: str, body: str) -> Element:
    """What a domain says to its own."""
    parts = [element(SUBJECT, None, subject)] if subject else []
    attrs = {"type": "headline", "from": domain}
    return element(f"{{{ns.CLIENT}}}message", attrs, *parts, element(BODY, None, body))


def crowds(sessions: list[Session]) -> Iterable[list[Session]]:
    """The sessions, some at a time."""
    return (sessions[start : start + CROWD] for start in range(0, len(sessions), CROWD))
