"""Announcements to all who are online, and a message of the day (after XEP-0133 4.23 to 4.26).

By command, or by a message from one of the configured admins to `<domain>/announce/online` (to all online),
`/announce/motd` (to all: now, or when they come), `/announce/motd/update` (only to those who come) or
`/announce/motd/delete`.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Annotated, Any
from xml.etree.ElementTree import Element

from xmppd import hooks, ns
from xmppd.plugin import (
    AccountAddress,
    CommandError,
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
    nobody,
    serialize,
)

CROWD = 200
"""How many sessions are shown the message of the day before others get their turn."""

SUBJECT, BODY = f"{{{ns.CLIENT}}}subject", f"{{{ns.CLIENT}}}body"
NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


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


class Announce(Plugin):
    """The message of the day is shown once to each account, to the resource that is available first."""

    Config = AnnounceConfig
    motds = Table(
        partition=("name",),
        columns={"id": "text", "subject": "text", "body": "text"},
        person=nobody("what operators say to all"),
    )
    seen = Table(partition=("account",), columns={"id": "text"}, person=Person("account"))
    shown = SessionSlot("")

    async def start(self) -> None:
        """Take up the message of the day where it was left."""
        row = await self.motds.get("motd")
        self._motd: Notice | None = self._notice(row["id"], row["subject"], row["body"]) if row else None
        self._deeds: dict[str, Callable[[str, str], Coroutine[Any, Any, object]]] = {
            "announce/online": self._announce,
            "announce/motd": self._set_motd,
            "announce/motd/update": self._update_motd,
            "announce/motd/delete": self._delete_motd,
        }

    # the three doors

    @command("Send a message to everybody who is online")
    async def send(self, text: Annotated[str, "what to say"]) -> dict[str, int]:
        """How many sessions it was sent to."""
        return {"sent": await self._announce("", sendable(text))}

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

    async def _announce(self, subject: str, body: str) -> int:
        accounts: dict[str, list[str]] = {}
        for account in self.server.connected():
            accounts.setdefault(account.rpartition("@")[2], []).append(account)
        copies = 0
        for domain, listeners in accounts.items():
            copies += await self.server.send_many(listeners, headline(domain, subject, body))
        return copies

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


def sendable(text: str) -> str:
    """The text itself; CommandError when XML cannot hold it, or there is none."""
    if not text or NOT_XML.search(text):
        raise CommandError("the text must not be empty, and holds no control characters")
    return text
