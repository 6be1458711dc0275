"""What clients send again when they come back, since they do not know whether it was taken: what is in the
archive by then is not archived once more, and goes on only if that may not have been done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Final

from xmppd import hooks, ns
from xmppd.plugin import (
    Counter,
    Kept,
    Lru,
    Origin,
    Session,
    SessionSlot,
    Stanza,
    StanzaError,
    StoreError,
    cluster_signal,
    read_stanza,
)

from .ids import LAST, MICROSECONDS, bound
from .losses import SLACK_SECONDS, after
from .missed import ANY, PROCESS_LETTERS, Missed
from .watermark import ALL, in_turns

AGAIN_SECONDS: Final = 600.0
"""How old a message may be that is known when it comes again, and how long that is looked for."""
OWN: Final = 200
LOOKED_AT: Final = 5000
"""Among how many of the last messages that its sender sent, and among how many in all."""
APART: Final = MICROSECONDS
"""How far clocks of nodes are apart, at most, before they hear of each other."""
LEFT_SECONDS: Final = 60.0
"""How long a session that has ended is in doubt."""
PAGE: Final = 200
"""Of these so many are read at once."""
FAILED: Final = 1000
"""Of how many messages it is remembered that they were archived and then refused."""
WRITTEN: Final = frozenset("&<>'\"\t\n\r")
"""What may be written in more than one way."""
ORIGIN_ID: Final = f"{{{ns.STANZA_ID}}}origin-id"


Sent = tuple[bytes, bytes]


@dataclass(slots=True, eq=False)
class Doubt:
    """A session whose client may send again what it sent before, by one that it could not resume (`sought`),
    or by this. What was under way goes on in this `process` of a `node`: "" here, None nowhere any more; what
    has an id before `since` may be of another process, and not have been begun there. `known`: in whose
    archive, the ids and stanzas of what its account sent last, the newest first, where that was looked for,
    as it is in those of `looking`.
    """

    until: float
    sought: str = ""
    node: str | None = None
    process: str = ""
    since: bytes = b""
    known: dict[str, list[Sent]] = field(default_factory=dict)
    looking: dict[str, asyncio.Future[None]] = field(default_factory=dict)


class Again(Missed):
    """`doubts` are few: sessions that began since another one was gone, or that were resumed while something
    of theirs was under way. All others pay nothing.
    """

    doubts: Kept[dict[Origin, Doubt]] = Kept(dict)
    doubted = SessionSlot(0)
    """Since when one is or was in doubt on the node that it was on last, in microseconds: what has a smaller
    id may be of another process, however much their clocks are apart.
    """
    repeated = Counter("Messages that were sent again and were in the archive already.")

    async def start(self) -> None:
        """Nothing has failed yet."""
        await super().start()
        self._doubts = self.doubts
        self._failed: Lru[str, bool] = Lru(FAILED)
        self.order.on_failed = lambda id: self.went_wrong.tell(id.hex())

    @cluster_signal
    def went_wrong(self, id: str) -> None:
        """A message is in the archives, and was refused nevertheless."""
        self._failed.put(id, True)

    def is_given_again(self, account: str, id: bytes) -> None:
        """What an account is about to be given may be older than what others have acknowledged."""
        self.goes_again(account, id.hex())
        for node in self.server.nodes_of(account):
            self.goes_again.tell_node(node, account, id.hex())

    @cluster_signal
    def goes_again(self, account: str, id: str) -> None:
        """The same for its sessions on this node."""
        known = bytes.fromhex(id)
        if known < self.order.floor:
            self.order.on_old(account, known)

    @hooks.session_bound
    def comes(self, session: Session) -> None:
        """It is in doubt if its client wanted to resume another one, or a process was killed just before, or
        may have been.
        """
        super().comes(session)
        if session.is_anonymous or session in self._doubts:
            return
        sought = session.login.sought
        if sought == ANY:
            sought, is_in_doubt = "", not self._is_quiet()
        else:
            is_in_doubt = bool(sought)
        if is_in_doubt or self.may_have_lost_some():
            self._doubts[session] = Doubt(self.scope.clock() + AGAIN_SECONDS, sought=sought)
            self.doubted[session] = self.server.ids.time.read() + APART

    def _is_quiet(self) -> bool:
        """Whether no process was killed lately."""
        since = bound(self.server.ids.time.read() - int(AGAIN_SECONDS * MICROSECONDS))
        return all(after(dead.mark) < since for dead in self._dead.values())

    @hooks.stanzas_given_up
    def gave_up(self, session: Session, node: str | None) -> None:
        """It is in doubt what of its messages is taken there."""
        process = self._there.get(node, "") if node else ""
        until, since = self.scope.clock() + AGAIN_SECONDS, bound(self.doubted[session])
        self._doubts[session] = Doubt(until, node=node, process=process, since=since)
        if node != "":
            self.doubted[session] = self.server.ids.time.read() + APART

    @hooks.session_closed
    def has_left(self, session: Session) -> None:
        """Its client sends nothing more; what it sent may still wait until it is known."""
        if session in self._doubts:
            self.call_later(LEFT_SECONDS, self._doubts.pop, session, None)

    def sent_before(
        self, origin: Origin, message: Stanza, account: str
    ) -> bytes | hooks.Drop | Awaitable[None] | None:
        """The id of a message that is in the archive of an account and has to go on again; DROP where it has
        gone on; None for a new one. What has to be waited for before this is known.
        """
        doubt = self._doubts[origin]
        if doubt.until < self.scope.clock():
            del self._doubts[origin]
            return None
        if not is_named(message):
            return None
        known = doubt.known.get(account)
        if known is None:
            looking = doubt.looking.get(account)
            if looking is None:
                looking = doubt.looking[account] = asyncio.get_running_loop().create_future()
                self.spawn(self._look_back(origin.account, account, doubt, looking))
            return asyncio.shield(looking)
        named, end = plain_id(message), message.raw[message.tail :]
        alike = [sent for sent in known if sent[1].endswith(end) and sent[1].find(named) >= 0]
        same = [sent for sent in alike if is_same(sent[1], message)]
        if not same:
            return None
        doubt.known[account] = [sent for sent in known if sent not in same]
        self.repeated.inc()
        id = same[0][0]
        has_gone_on = id >= doubt.since and self._goes_on(doubt) and self._failed.get(id.hex()) is None
        return hooks.DROP if has_gone_on else id

    def _goes_on(self, doubt: Doubt) -> bool:
        """Whether what was under way has gone on for sure."""
        return doubt.node == "" or (doubt.node is not None and self._is_there(doubt.process, doubt.node))

    async def _look_back(
        self, sender: str, account: str, doubt: Doubt, looking: asyncio.Future[None]
    ) -> None:
        try:
            doubt.known[account] = await self._last_of(sender, account, doubt)
        except (StanzaError, StoreError) as error:
            self.log.warning("store-failed", extra={"kind": "again", "error": str(error)})
        finally:
            del doubt.looking[account]
            if not looking.done():
                looking.set_result(None)

    async def _last_of(self, sender: str, account: str, doubt: Doubt) -> list[Sent]:
        """What somebody has sent lately, when all of that is in this archive, which may be another one's. It
        is parsed when something comes that ends like it.
        """
        found: list[Sent] = []
        if await self.uid_of(account) is None:
            return found
        if doubt.sought:
            await self._trace(sender, doubt)
        owner, now = await self._owner(account), self.server.ids.time.read()
        since = bound(now - int(AGAIN_SECONDS * MICROSECONDS))
        await self._follow_clock(owner, account, since, bound(now + int(SLACK_SECONDS * MICROSECONDS)))
        end = await self.finished(account)
        peer, own = "" if account == sender else sender, sender.encode()
        left = LOOKED_AT
        while left > 0 and len(found) < OWN:
            page = await self._last(owner, account, since, end, min(left, PAGE), peer)
            if not page:
                break
            heads = b"from='%b" % own, b'from="%b' % own
            found += [sent async for sent in in_turns(page[::-1]) if any(head in sent[1] for head in heads)]
            end, left = page[0][0], left - len(page)
        return found

    async def _trace(self, account: str, doubt: Doubt) -> None:
        """Find out where the session was that was sought. Where a process was killed lately that one may have
        been in doubt itself, and what it had not begun was not.
        """
        if not self._is_quiet():
            doubt.since = bound(LAST)
        row = await self.behind.get(account, doubt.sought)
        process: str = row["process"] if row is not None else doubt.sought[:PROCESS_LETTERS]
        if process == self.server.process:
            doubt.node = ""
        elif (there := await self.processes.get(ALL, process)) is not None:
            doubt.node, doubt.process = there["node"], process


def is_named(message: Stanza) -> bool:
    """Whether a client has given a message an id: two that have none are two."""
    if message.id:
        return True
    return message.raw.find(b"origin-id") >= 0 and message.xml.find(ORIGIN_ID) is not None


def plain_id(message: Stanza) -> bytes:
    """The id of a message if it can be written in one way alone; b"" otherwise."""
    id = message.id or ""
    return id.encode() if not WRITTEN.intersection(id) and id.isascii() else b""


def is_same(archived: bytes, message: Stanza) -> bool:
    """Whether a message says what its sender said before, whichever session of his said it."""
    before = read_stanza(archived)
    sender = message.attrs.get("from", "").partition("/")[0]
    return (
        before.attrs.get("from", "").partition("/")[0] == sender
        and {**before.attrs, "from": ""} == {**message.attrs, "from": ""}
        and before.raw[before.tail :] == message.raw[message.tail :]
    )
