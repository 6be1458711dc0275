"""Push notifications (XEP-0357): whoever has something waiting for a client that cannot see it is told by way
of its app server.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final, Literal

from xmppd import hooks, ns
from xmppd.plugin import (
    ACCOUNT,
    SELF,
    Jid,
    Kept,
    Lru,
    Origin,
    Person,
    Plugin,
    PluginConfig,
    PositiveFloat,
    PositiveInt,
    Request,
    Session,
    SessionSlot,
    Stanza,
    StanzaError,
    StoreError,
    Table,
    at_most,
    cluster_signal,
    element,
    iq_set,
    read_stanza,
)

from .forms import Seen, Service, asked, options_of, publish, seen_in

ENABLE: Final = f"{{{ns.PUSH}}}enable"
DISABLE: Final = f"{{{ns.PUSH}}}disable"
SHOW: Final = f"{{{ns.CLIENT}}}show"

ACCOUNTS: Final = 10_000
"""Accounts of which notifications are due or rest at once; of others none are sent meanwhile."""
ALL: Final = ""
"""All registrations of an account, where the key of one may stand."""


class PushConfig(PluginConfig):
    """`registrations`: how many an account may have; `bytes` of the node and options of each. `tells`: what
    app servers are told, each with what stands before it. `pause`: seconds from one notification of a
    registration to the next; `answer`: how long an app server may take; `failures`: after so many in a row
    that may pass a registration is gone. `inactive`: also for clients that nobody looks at (XEP-0352).
    `resume_seconds`: how long sessions whose clients enabled push wait for these, and how they are `shown`.
    """

    registrations: PositiveInt = 10
    bytes: PositiveInt = 4096
    tells: Literal["nothing", "count", "sender", "body"] = "count"
    pause: PositiveFloat = 30.0
    answer: PositiveFloat = 20.0
    failures: PositiveInt = 5
    inactive: bool = False
    resume_seconds: Annotated[PositiveFloat, at_most(7 * 86400)] = 86400.0
    shown: Literal["unchanged", "away"] = "unchanged"


@dataclass(slots=True)
class Due:
    """What registrations of one account are to be told, by their keys: how many messages, and the last."""

    counts: dict[str, int] = field(default_factory=dict)
    last: dict[str, Seen] = field(default_factory=dict)

    def add(self, key: str, count: int, seen: Seen) -> None:
        """So many more for this registration, or for all."""
        self.counts[key] = self.counts.get(key, 0) + count
        self.last[key] = seen

    def of(self, key: str) -> tuple[int, Seen] | None:
        """What one registration is to be told."""
        keys = [one for one in (key, ALL) if one in self.counts]
        return (sum(self.counts[one] for one in keys), self.last[keys[0]]) if keys else None


class Push(Plugin):
    """Keeps registrations by account. Of several nodes one has the notifications of an account (`_owner`)."""

    Config = PushConfig
    features: ClassVar = {ACCOUNT: (ns.PUSH,)}
    registrations = Table(
        partition=("account",),
        cluster=("service", "node"),
        columns={"options": "text", "at": "timestamp"},
        person=Person("account"),
    )
    enabled = SessionSlot("")
    presence: SessionSlot[list[str]] = SessionSlot([])
    failed: Kept[Lru[tuple[str, str], int]] = Kept(lambda: Lru(ACCOUNTS))

    async def start(self) -> None:
        """Nothing is due."""
        self._due: dict[str, Due] = {}
        self._hiding: set[Session] = set()

    # registrations

    @iq_set(ENABLE, SELF)
    async def enable(self, request: Request) -> None:
        """XEP-0357 5; of what was enabled before the last options count."""
        service, options = asked(request.payload), options_of(request.payload)
        host = Jid.parse(service.jid).domain
        if not self.server.routes_to(host):
            condition = "service-unavailable" if host in self.server.domains else "remote-server-not-found"
            raise StanzaError(condition, "No app server is known there.")
        if len(service.node.encode()) + len(options.encode()) > self.config.bytes:
            raise StanzaError("policy-violation", "This is more than a registration may have.")
        session = request.session
        account = session.account
        async with self.server.writing(account, session) as exists:
            if not exists:
                raise StanzaError("not-allowed", "An anonymous session cannot be notified.")
            # Of two requests at once both may be taken: the bound guards the disk, and promises nothing.
            kept = [Service(row["service"], row["node"]) for row in await self._rows(account)]
            if service not in kept and len(kept) >= self.config.registrations:
                raise StanzaError("resource-constraint", "This account has too many registrations.")
            row = {"account": account, **_key(service), "options": options, "at": self.now()}
            await self.registrations.put(row)
        self.enabled[session] = key_of(service)
        self.server.keep_detached(session, self.config.resume_seconds)

    @iq_set(DISABLE, SELF)
    async def disable(self, request: Request) -> None:
        """XEP-0357 6: one, or all of a service; harmless where there is none."""
        wanted, account = asked(request.payload), request.session.account
        is_one = request.payload.get("node") is not None
        for row in await self._rows(account):
            if row["service"] == wanted.jid and (not is_one or row["node"] == wanted.node):
                await self.registrations.delete(account, row["service"], row["node"])
                self.gone.tell(account, key_of(Service(row["service"], row["node"])))

    @hooks.account_removed
    async def forget(self, account: str) -> None:
        """Nobody is told of whoever has its name next."""
        await self.registrations.delete(account)

    @cluster_signal
    def gone(self, account: str, key: str) -> None:
        """A registration is: the session that made it is one as all others."""
        for session in self.server.sessions(account):
            if self.enabled[session] == key:
                self.enabled[session] = ""
                self.server.keep_detached(session, None)

    async def _rows(self, account: str) -> Sequence[Mapping[str, Any]]:
        return (await self.registrations.scan(account)).rows

    # sessions

    @hooks.session_resumed
    def keep(self, session: Session) -> None:
        """It comes from another node, and is one that waits for longer here as well."""
        if self.enabled[session]:
            self.server.keep_detached(session, self.config.resume_seconds)

    @hooks.session_detached
    def begin_waiting(self, session: Session) -> None:
        """What its client has not acknowledged waits for it."""
        if not self.enabled[session]:
            return
        self.server.keep_detached(session, self.config.resume_seconds)
        if self.config.shown == "away" and session.presence is not None:
            self.spawn(self._show_away(session))
        self.note(session, self.server.unacknowledged(session))

    @hooks.stanzas_waiting
    def note(self, session: Session, stanzas: Sequence[bytes]) -> None:
        """Its client is told, if anything among these matters."""
        key = self.enabled[session]
        if not key or (session.connection.peer and not self.config.inactive):
            return
        seen = [one for raw in stanzas if (one := seen_in(raw, session.account)) is not None]
        if seen:
            self._want(session.account, key, len(seen), seen[-1])

    @hooks.session_returned
    def end_waiting(self, session: Session) -> None:
        """It is shown as it was before, unless its client has said something else meanwhile."""
        if self.presence[session]:
            self.spawn(self._show_again(session))

    async def _show_away(self, session: Session) -> None:
        before = shown_by(session)
        if session.connection.peer or session.is_over or not before:
            return
        stanza = read_stanza(before.encode())
        if (stanza.xml.findtext(SHOW) or "chat") != "chat":
            return  # away already, or to be left in peace
        rest = [child for child in stanza.xml if child.tag != SHOW]
        away = element(f"{{{ns.CLIENT}}}presence", None, element(SHOW, None, "away"), *rest)
        self.presence[session] = [before, ""]
        self._hiding.add(session)
        try:
            await self.server.set_presence(session, away)
            self.presence[session] = [before, shown_by(session)]
        finally:
            self._hiding.discard(session)
        if session.connection.peer:
            await self._show_again(session)

    async def _show_again(self, session: Session) -> None:
        if session in self._hiding or not self.presence[session]:
            return  # `_show_away` is still at it, and looks itself
        before, during = self.presence[session]
        self.presence[session] = []
        if not session.is_over and (not during or shown_by(session) == during):
            stanza = read_stanza(before.encode())
            await self.server.set_presence(session, element(stanza.xml.tag, None, *stanza.xml))

    # what is due

    @hooks.message_routed
    def note_kept(self, origin: Origin, message: Stanza, account: str, outcome: hooks.Outcome) -> None:
        """What is kept since nobody is there waits for all who might come; not what is about to be given to
        somebody who is coming.
        """
        if outcome is not hooks.Outcome.KEPT or any(one.priority >= 0 for one in self.server.locate(account)):
            return
        if (seen := seen_in(message.raw, account)) is not None:
            self._want(account, ALL, 1, seen)

    def _want(self, account: str, key: str, count: int, seen: Seen) -> None:
        """Have the node tell that has the notifications of the account."""
        owner = self._owner(account)
        if owner == self.server.node:
            self.wanted(account, key, count, *seen)
        else:
            self.wanted.tell_node(owner, account, key, count, *seen)

    def _owner(self, account: str) -> str:
        others = [node for node in self.server.other_nodes() if self.server.runs(node, "push")]
        return max(
            (self.server.node, *others), key=lambda node: (zlib.crc32(f"{node} {account}".encode()), node)
        )

    @cluster_signal
    def wanted(self, account: str, key: str, count: int, sender: str, body: str) -> None:
        """So many more messages wait, for the client of one registration or for all."""
        is_at_rest = account not in self._due
        if is_at_rest and len(self._due) >= ACCOUNTS:
            return
        self._due.setdefault(account, Due()).add(key, count, Seen(sender, body))
        if is_at_rest:
            self.spawn(self._tell(account))

    async def _tell(self, account: str) -> None:
        """Tell who is to be told. What comes until the pause is over is told behind it."""
        due, self._due[account] = self._due[account], Due()
        try:
            rows = await self._rows(account)
            await asyncio.gather(*(self._publish(account, row, due) for row in rows))
        except StoreError:
            self.log.warning("push-failed", extra={"jid": account, "error": "store"})
        finally:
            self.call_later(self.config.pause, self._rested, account)

    def _rested(self, account: str) -> None:
        if self._due[account].counts:
            self.spawn(self._tell(account))
        else:
            del self._due[account]

    async def _publish(self, account: str, row: Mapping[str, Any], due: Due) -> None:
        service = Service(row["service"], row["node"])
        key = key_of(service)
        if (told := due.of(key)) is None:
            return
        request = publish(service, row["options"], self._summary(*told))
        try:
            await self.server.ask(
                service.jid,
                request,
                kind="set",
                sender=account.partition("@")[2],
                seconds=self.config.answer,
            )
        except StanzaError as error:
            await self._refused(account, row, key, error)
        else:
            self.failed.drop((account, key))

    def _summary(self, count: int, seen: Seen) -> Mapping[str, str]:
        told = ("nothing", "count", "sender", "body").index(self.config.tells)
        every = (
            ("message-count", str(count)),
            ("last-message-sender", seen.sender),
            ("last-message-body", seen.body),
        )
        return dict(every[:told])

    async def _refused(self, account: str, row: Mapping[str, Any], key: str, error: StanzaError) -> None:
        """XEP-0357 7.1: the registration is gone, unless the error may pass and is not one of many. One
        that was made anew meanwhile is another.
        """
        count = (self.failed.get((account, key)) or 0) + 1
        if error.type == "wait" and count < self.config.failures:
            self.failed.put((account, key), count)
            return
        self.failed.drop((account, key))
        self.log.info(
            "push-disabled", extra={"jid": account, "service": row["service"], "error": error.condition}
        )
        if await self.registrations.delete_if(account, row["service"], row["node"], expect={"at": row["at"]}):
            self.gone.tell(account, key)


def key_of(service: Service) -> str:
    """What a registration of an account is called."""
    return f"{service.jid}\n{service.node}"


def _key(service: Service) -> Mapping[str, str]:
    return {"service": service.jid, "node": service.node}


def shown_by(session: Session) -> str:
    """The presence that a session shows to all, "" for none."""
    shown = session.presence
    return "" if shown is None else (shown.head + shown.tail).decode()
