"""What a conversation is made of beyond its messages: who has read how far (XEP-0333, XEP-0490), what was
taken back (XEP-0424), and the list of all conversations of an account.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from xmppd import hooks, ns
from xmppd.plugin import (
    SELF,
    Counter,
    Lru,
    Person,
    Request,
    Session,
    SessionSlot,
    Stanza,
    StanzaError,
    StoreError,
    Table,
    cluster_signal,
    element,
    iq_get,
    iq_set,
    offered,
    serialize,
    stanza_of,
)

from .conversations import (
    OTHER,
    OWN,
    QUERY,
    READ,
    ListQuery,
    Lists,
    Talk,
    Walk,
    list_query_of,
    listed,
    talk_of,
)
from .filing import Folder
from .ids import MICROSECONDS, at_of, bound, from_text, month_of, stamp_of, to_text
from .keeping import Lives
from .ordered import Ordered
from .preferences import OWNER, Owner
from .query import id_of, peer_of
from .remarks import MOST, Errands, Remark, Side, remark_of, seconds_of
from .seeking import PAGE_COUNTS, Seeker, Sought
from .tombstones import is_tombstone, tombstone
from .under_way import Entry

IQ: Final = f"{{{ns.CLIENT}}}iq"
DISPLAYED: Final = f"{{{ns.DISPLAYED}}}displayed"
STANZA_ID: Final = f"{{{ns.STANZA_ID}}}stanza-id"
SETTLED_SECONDS: Final = 1.0
"""How old a message is before it is replaced, where the clocks of several nodes say which write is newer."""
AHEAD_SECONDS: Final = 5.0
"""For how long an account may have more gone through for its lists than it may in the long run."""
LISTERS: Final = 10_000
"""Of how many accounts it is remembered up to when they had as much as they may."""
AGAIN_SECONDS: Final = 10.0
TRIES: Final = 3
"""How often and when a message that was taken back is looked for while it may not be there yet."""

_DISPLAYED: Final = ns.DISPLAYED.encode()


class Talks(Ordered):
    """What an archive knows of conversations. Remarks about messages are followed up behind their senders'
    backs, when the archives have them: what a crash cuts short there is still said in the archive itself.
    """

    messages: Table
    days: Table
    months: Table
    by_peer: Table
    lives: Lives

    shown = Table(
        partition=("owner",),
        cluster=("peer", "side"),
        columns={"owner": "int", "id": "blob", "at": "int"},
        order="at",
        person=Person("owner", OWNER, mentions={"peer": "kept"}),
    )
    is_told = SessionSlot(False)
    """Whether a session asked for conversations, and is told what is read on other devices."""
    retracted = Counter("Messages of archives that were taken back.")
    ignored = Counter("Markers, retractions and readings that came too fast to be followed up.")

    async def start(self) -> None:
        """Nothing is to be looked for."""
        await super().start()
        self._errands = Errands(self.spawn, self.call_later)
        self._pushes = 0
        self._to_tell: dict[tuple[str, str], tuple[bytes, str]] = {}
        self._unsettled: dict[str, list[str]] = {}
        self._paid_until: Lru[str, float] = Lru(LISTERS)

    async def _owner(self, account: str) -> Owner:
        raise NotImplementedError

    # remarks

    def _note_remark(self, message: Stanza, entry: Entry, folders: Sequence[Folder]) -> None:
        """Follow up what a message says of an earlier one, when it is in the archives of these."""
        remark = remark_of(message)
        if remark is not None:
            sides = [Side(account, owner, peer, entry.id) for account, owner, peer, _ in folders]
            entry.when_ready(partial(self._begin, remark, sides, entry))

    def _begin(self, remark: Remark, sides: Sequence[Side], entry: Entry) -> None:
        if entry.error is not None:
            return
        if remark.is_retraction:
            self._do(remark.sender, ("retract", remark.to, remark.about), self._retract, remark, sides, TRIES)
        else:
            self._do(remark.sender, ("display", remark.to, remark.about), self._display, remark, sides)

    def _do(
        self, account: str, key: tuple[str, ...], work: Callable[..., Awaitable[int]], *about: Any
    ) -> bool:
        """Have it done behind what is waiting for the account already; whether there is room for it. Of too
        much that was read in one conversation the last counts.
        """
        group = key[:2] if key[0] in ("display", "read") else ()
        is_taken = self._errands.add(account, key, partial(work, *about), group)
        self.ignored.inc(not is_taken)
        return is_taken

    async def _display(self, remark: Remark, sides: Sequence[Side]) -> int:
        """Somebody has read up to a message: note that for both (XEP-0333)."""
        rows = 0
        try:
            for side in sides:
                found = await self._sought(remark, side)
                rows += found.rows
                if found.message is not None:
                    whose = OWN if side.account == remark.sender else OTHER
                    id = found.message.id
                    await self._move(side.account, side.owner, side.peer, whose, id, remark.by)
        except StoreError as error:
            self._failed(remark.sender, error)
        return rows

    async def _take_mark(self, by: str, account: str, peer: str, text: str) -> int:
        """A client has read up to the message that has this id in the archive of its account."""
        id = from_text(text)
        try:
            owner = await self._owner(account)
            if id is not None and await self.messages.get(owner.uid, month_of(id), id, peer) is not None:
                await self._move(account, owner.uid, peer, OWN, id, by)
        except StanzaError:
            return 0  # there is no such archive
        except StoreError as error:
            self._failed(account, error)
        return 1

    async def _retract(self, remark: Remark, sides: Sequence[Side], tries: int) -> int:
        """A message was taken back (XEP-0424): leave a tombstone of it, and of each correction. Where that
        cannot be done yet it is tried again: where several nodes write it may still be under way.
        """
        rows, left = 0, []
        for side in sides:
            try:
                found = await self._sought(remark, side)
                rows += found.rows + PAGE_COUNTS * len(found.corrections)
                is_done = found.message is not None or not self.server.has_other_nodes
                for id in (*found.corrections, *([found.message.id] if found.message else ())):
                    is_done &= await self._is_buried(remark, side, id)
            except StoreError as error:
                self._failed(remark.sender, error)
                is_done = False
            if not is_done:
                left.append(side)
        if left and tries > 1:
            key = ("retract", remark.to, remark.about)
            self.call_later(
                AGAIN_SECONDS, self._do, remark.sender, key, self._retract, remark, left, tries - 1
            )
        return rows

    def _seeker(self, owner: int) -> Seeker:
        return Seeker(self.messages, self.days, self.months, owner, self.by_peer, self.since(owner))

    def since(self, owner: int) -> bytes:
        """From which id on each message of an archive has a row by its peer; b"": never."""
        raise NotImplementedError

    async def _sought(self, remark: Remark, side: Side) -> Sought:
        return await self._seeker(side.owner).find(side.peer, remark.author, remark.about, side.id)

    async def _is_buried(self, remark: Remark, side: Side, id: bytes) -> bool:
        """Leave a tombstone in one archive; whether all is done that can be. Where several nodes write, their
        clocks say which of two writes is the newer one.
        """
        if self.server.has_other_nodes and self.now() - at_of(id) / MICROSECONDS < SETTLED_SECONDS:
            return False
        key = (side.owner, month_of(id), id, side.peer)
        async with self.server.writing(side.account) as exists:
            row = await self.messages.get(*key)
            if not exists or row is None or is_tombstone(row["stanza"]):
                return True
            life = self._life_of(side.account, id)
            if life is not None and life <= 0:
                return True
            stone = tombstone(row["stanza"], remark.id or to_text(side.id), stamp_of(side.id))
            await self.messages.put({**row, "stanza": stone}, ttl=life)
            row = await self.messages.get(*key)
        is_done = row is None or is_tombstone(row["stanza"])
        self.retracted.inc(is_done)
        return is_done

    def _life_of(self, account: str, id: bytes) -> float | None:
        """How many seconds a message still lives; None: for ever."""
        life = self.lives.of(account)
        return None if life is None else life - (self.now() - at_of(id) / MICROSECONDS)

    def _failed(self, account: str, error: StoreError) -> None:
        self.log.warning("remark-failed", extra={"jid": account, "error": str(error)})

    # how far who has read

    async def _move(self, account: str, owner: int, peer: str, side: str, id: bytes, by: str) -> None:
        """Somebody has read up to a message: positions only go forward (XEP-0333 6). `by` is the client that
        says so; the others of its account are told.
        """
        async with self.server.writing(account) as exists:
            if not exists or (await self._owner(account)).uid != owner:
                return
            row = await self.shown.get(owner, peer, side)
            if row is not None and row["id"] >= id:
                return
            new = {"owner": owner, "peer": peer, "side": side, "id": id, "at": at_of(id)}
            life = self.lives.longest_of(account)
            if life is not None:
                life -= self.now() - at_of(id) / MICROSECONDS
            if life is None or life > 0:
                await self.shown.put_newest(new, ttl=life)
        if side == OWN:
            self.was_read.tell(account, peer, to_text(id), by)

    @cluster_signal
    def was_read(self, account: str, peer: str, id: str, by: str) -> None:
        """Tell the other clients of an account that one of them has read up to a message. What is told of a
        conversation is what is newest by then.
        """
        read = from_text(id)
        if read is None or not any(self._others_told(account, by)):
            return
        key = account, peer
        if (waiting := self._to_tell.get(key)) is None or waiting[0] < read:
            self._to_tell[key] = read, by
        if waiting is None:
            self._tell_in_turn(account, peer)

    def _tell_in_turn(self, account: str, peer: str, *waited: bytes | None) -> None:
        if not self._do(account, ("tell", peer), self._tell, account, peer, *waited):
            del self._to_tell[account, peer]

    def _tell_when_settled(self, account: str, peer: str) -> None:
        """Something is under way into the archive: let other things be done until it is there."""
        peers = self._unsettled.get(account)
        if peers is None:
            self._unsettled[account] = [peer]
            self.spawn(self._settle(account))
        elif len(peers) < MOST:
            peers.append(peer)
        else:
            del self._to_tell[account, peer]
            self.ignored.inc()

    async def _settle(self, account: str) -> None:
        end: bytes | None = None
        try:
            end = await self.horizon(account)
        except StanzaError:
            pass  # nobody can say how much is not read
        finally:
            peers = self._unsettled.pop(account)
        for peer in peers:
            self._tell_in_turn(account, peer, end)

    async def _tell(self, account: str, peer: str, *waited: bytes | None) -> int:
        """Tell them; through how many messages that took. `waited`: what is shown of the archive, if that was
        waited for.
        """
        before = self.horizon_now(account)
        if before is None:
            if not waited:
                self._tell_when_settled(account, peer)
                return 0
            [before] = waited
        id, by = self._to_tell.pop((account, peer))
        about, rows = {"with": peer, "id": to_text(id), "stamp": stamp_of(id)}, 1
        try:
            owner = await self._owner(account)
            if before is not None:
                walk = await self._list(owner, account, ListQuery(b"", b"", peer, 1), before)
                rows += walk.weight
                about |= {name: value for one in walk.page for name, value in one.unread_attrs().items()}
            now = await self.shown.get(owner.uid, peer, OWN)
        except StanzaError:
            return rows  # there is no such archive any more
        except StoreError as error:
            self._failed(account, error)
            return rows
        if now is not None and now["id"] > id:
            return rows  # it is told of that one
        for session in self._others_told(account, by):
            self._pushes += 1
            attrs = {"type": "set", "id": f"read{self._pushes}", "to": session.full}
            session.send(serialize(element(IQ, attrs, element(READ, about))))
        return rows

    def _others_told(self, account: str, by: str) -> Iterator[Session]:
        for session in self.server.sessions(account):
            if session.full != by and self.is_told[session]:
                yield session

    @hooks.message_sent.at(hooks.FILTER)
    def take_displayed(self, session: Session, message: Stanza) -> Stanza:
        """What a client tells its own server in a message to somebody else is not for him (XEP-0490 3.5)."""
        raw = message.raw
        if message.is_plain or (raw.find(_DISPLAYED) < 0 and raw.find(b"&#") < 0):
            return message
        tree = message.xml
        mark = tree.find(DISPLAYED)
        if mark is None:
            return message
        named, peer = mark.find(STANZA_ID), peer_of(message.to or session.account)[0]
        if named is not None and named.get("by") == session.account:
            about = (session.full, session.account, peer, named.get("id", ""))
            self._do(session.account, ("read", *about[2:]), self._take_mark, *about)
        kept = element(tree.tag, tree.attrib, tree.text or "")
        kept.extend(child for child in tree if child.tag != DISPLAYED)
        return stanza_of(kept)

    # what clients ask

    @iq_set(READ, SELF)
    async def read(self, request: Request) -> None:
        """A conversation was read up to a message, and who it is with is not told."""
        session, payload = request.session, request.payload
        await self.read_to(session, peer_of(payload.get("with", ""))[0], payload.get("id", ""))

    @offered
    async def read_to(self, session: Session, peer: str, text: str) -> None:
        """A session has read a conversation up to the message of this id; StanzaError item-not-found."""
        id, owner = id_of(text), await self._owner(session.account)
        if not peer or await self.messages.get(owner.uid, month_of(id), id, peer) is None:
            raise StanzaError("item-not-found", "There is no message of this id in this conversation.")
        await self._move(session.account, owner.uid, peer, OWN, id, session.full)

    @iq_get(QUERY, SELF)
    async def conversations(self, request: Request) -> bytes:
        """The last conversations, and what of them was not read. From now on the session is told what other
        ones read.
        """
        query = list_query_of(request.payload, self.config.page, self.config.page_most)
        walk = await self._walk(request.session.account, query, request.session)
        return listed(request.session.account, walk)

    @offered
    async def talks_of(self, account: str, size: int = 0, since: float = 0.0) -> list[Talk]:
        """The last conversations of an account (`size` 0: a usual page), the newest first, in which something
        was said since a moment; StanzaError for who has no archive, or asks too often.
        """
        most = min(size or self.config.page, self.config.page_most)
        after = bound(round(since * MICROSECONDS)) if since else b""
        walk = await self._walk(account, ListQuery(after, b"", "", most))
        return [talk_of(one) for one in walk.page]

    @offered
    async def read_by(self, account: str, peer: str) -> float:
        """Of when the message is up to which an account has read a conversation (seconds since the epoch);
        0.0: not known.
        """
        row = await self.shown.get((await self._owner(account)).uid, peer, OWN)
        return 0.0 if row is None else at_of(row["id"]) / MICROSECONDS

    async def _walk(self, account: str, query: ListQuery, session: Session | None = None) -> Walk:
        """A page of a list; an account has so much gone through, no more. From then on a session is told."""
        if (self._paid_until.get(account) or 0.0) - self.now() > AHEAD_SECONDS:
            raise StanzaError("resource-constraint", "Ask more slowly.", type="wait")
        owner = await self._owner(account)
        if session is not None:
            self.is_told[session] = True
        walk = await self._list(owner, account, query, await self.horizon(account))
        paid_until = max(self._paid_until.get(account) or 0.0, self.now())
        self._paid_until.put(account, paid_until + seconds_of(walk.weight))
        return walk

    async def _list(self, owner: Owner, account: str, query: ListQuery, before: bytes) -> Walk:
        """Conversations as they are before an id."""
        after = bound(self.lives.oldest(account))
        lists = Lists(self._seeker(owner.uid), self.shown, owner.uid)
        return await lists.page(account, query, after, before)
