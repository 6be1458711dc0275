"""Message archives (XEP-0313): every message worth it is durable in the archives of both sides before it is
handed on and counts as handled; each has an id that its receiver is told (XEP-0359), and preferences say what
is not to be kept (XEP-0441).
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from functools import partial
from typing import ClassVar, Final

from xmppd import hooks, ns
from xmppd.plugin import (
    ACCOUNT,
    SERVER,
    Counter,
    Element,
    Jid,
    Later,
    Lru,
    Origin,
    Person,
    Recorded,
    Request,
    Session,
    SessionSlot,
    Stanza,
    StanzaError,
    StoreError,
    Table,
    begun,
    element,
    escape_attribute,
    insert_child,
    iq_get,
    iq_set,
    offered,
    serialize,
    stamped,
    takes_at_bind,
)

from .again import Again
from .commands import Keeping
from .config import ArchiveConfig
from .content import is_content
from .filing import Dialogue, Filer, Folder
from .ids import (
    MICROSECONDS,
    Stamps,
    at_of,
    bound,
    from_text,
    stamp_of,
    texts_of,
    to_letters,
    to_text,
)
from .keeping import Keeper, Lives, Writers
from .moving import Moving
from .ordered import PAGE_SECONDS
from .owning import Owning
from .preferences import ARCHIVE, OWNER, PREFS, Owner, preferences_of
from .query import QUERY, Query, form, query_of
from .reading import Page
from .recalling import CaughtUp
from .search import Searcher, Searches
from .talks import Talks
from .under_way import Entry, Known

METADATA: Final = f"{{{ns.MAM}}}metadata"
STAMPED: Final = f"'><forwarded xmlns='{ns.FORWARD}'><delay xmlns='{ns.DELAY}' stamp='".encode()
FORWARDED: Final = f"'/><message xmlns='{ns.CLIENT}'".encode()
RESULT_END: Final = b"</forwarded></result></message>"
"""What stands in a result between its id, its stamp, and the rest of a message behind `<message`."""
STAMPS: Final = Stamps(STAMPED, FORWARDED)
AHEAD: Final = 3600 * MICROSECONDS
PIECE: Final = 12_288
"""Bytes of results that are made and sent together, but for the last of them."""
DIALOGUES: Final = 20_000
"""Of how many pairs of accounts it is remembered in whose archives is kept what one says to the other."""
BIND_SECONDS: Final = 0.5
"""How long a login waits for what other nodes have under way."""
AGAIN_SECONDS: Final = 1.0
"""When a write whose outcome is unknown is made again."""
LISTED: Final = 10_000
LISTED_SECONDS: Final = 5.0
"""Of how many contacts it is remembered whether they are in a roster, and for how long."""


class Archive(Owning, Keeping, Moving, Searches, Again, Talks):
    """A row for each message and owner, in one partition a month. Beside it stands on which days there are
    any with a peer, and in which months any at all: so a page costs the same at any depth.
    """

    Config = ArchiveConfig
    features: ClassVar = {
        ACCOUNT: (
            ns.MAM,
            f"{ns.MAM}#extended",
            f"{ns.MAM}#groupchat-field",
            ns.STANZA_ID,
            ns.FULLTEXT,
            ns.RETRACTION,
            f"{ns.RETRACTION}#tombstone",
        ),
        SERVER: (ns.MAM, ns.RETRACTION),
    }
    """Clients look for archives at their account; profanity 0.13 does at the server."""

    messages = Table(
        partition=("owner", "month"),
        cluster=("id", "peer"),
        columns={"owner": "int", "month": "int", "id": "blob", "stanza": "blob"},
        heap=True,
        person=Person("owner", ARCHIVE, mentions={"peer": "kept", "stanza": "kept"}),
    )
    days = Table(
        partition=("owner",),
        cluster=("peer", "day"),
        columns={"owner": "int", "day": "int"},
        person=Person("owner", OWNER, mentions={"peer": "kept"}),
    )
    months = Table(
        partition=("owner",),
        cluster=("month",),
        columns={"owner": "int", "month": "int"},
        person=Person("owner", OWNER),
    )

    caught_up = SessionSlot(factory=CaughtUp)
    """What a session has read before it was available."""

    archived = Counter("Messages that were written to archives.")
    asked = Counter("Requests for messages of an archive.")
    searched = Counter("Requests that looked for words.")

    async def start(self) -> None:
        """Nothing is under way."""
        await super().start()
        self._listed: Lru[tuple[str, str], tuple[bool, float]] = Lru(LISTED)
        self._dialogues: Lru[tuple[str, str], Dialogue] = Lru(DIALOGUES)
        self.writers = Writers(self.messages, self.days, self.months, self.by_peer)
        self.lives = Lives(self.config.days, self.config.domains, self.now)
        self.keeper = Keeper(self.messages, self.days, self.months, self.by_peer, self.shown)
        self.filer = Filer(
            self.messages,
            self.writers,
            self.lives,
            spawn=self.spawn,
            pause=partial(self.pause, AGAIN_SECONDS),
            count=self.archived.inc,
            since=self.crowds.since,
            wrote=self.crowds.wrote,
        )
        await self.note_lives()

    # writing

    @hooks.message_recorded
    def record(
        self, origin: Origin, message: Stanza, to: Jid
    ) -> Recorded | hooks.Drop | Awaitable[None] | None:
        """Begin to write a message into the archives of both sides; what has to be waited for first, where it
        is not known whose archives these are.
        """
        if not is_content(message):
            return None
        dialogue = self._dialogues.get((origin.account, to.bare))
        if dialogue is not None and dialogue.changes == self._changes:
            return self._record(origin, message, dialogue)
        found = self._dialogue(origin, to)
        return self._record(origin, message, found) if isinstance(found, Dialogue) else found

    @hooks.message_barred
    def record_barred(
        self, origin: Origin, message: Stanza, to: Jid, *, is_refused: bool
    ) -> Recorded | hooks.Drop | Awaitable[None] | None:
        """The same for what its receiver is not given: the archive of its sender has it, if that is wanted of
        what is refused because he is blocked.
        """
        if (is_refused and not self.config.blocked) or not is_content(message):
            return None
        found = self._dialogue(origin, to, is_barred=True)
        return self._record(origin, message, found) if isinstance(found, Dialogue) else found

    def _record(
        self, origin: Origin, message: Stanza, dialogue: Dialogue
    ) -> Recorded | hooks.Drop | Awaitable[None]:
        """Into the archives that have this dialogue."""
        known = self.sent_before(origin, message, dialogue.accounts[0]) if origin in self._doubts else None
        if known is not None:
            return self._record_again(origin, message, dialogue, known) if isinstance(known, bytes) else known
        entry = self.order.entry(dialogue.accounts, origin.account, message)
        entry.is_half = not dialogue.named
        self.order.begin(entry, self._file, dialogue)
        return entry

    def _record_again(self, origin: Origin, message: Stanza, dialogue: Dialogue, id: bytes) -> Recorded:
        """Write over a message that was written and perhaps not handed on."""
        sender, receiver = origin.account, dialogue.receiver
        self.is_given_again(receiver, id)
        entry = Known(self.order, id, dialogue.accounts, sender, message)
        self._file(entry, dialogue)
        domain = (receiver if self._is_ours(receiver) else sender).rpartition("@")[2]
        raw = stamped(entry.message, domain, at_of(id) / MICROSECONDS)
        entry.message = Stanza("message", message.attrs, raw)
        return entry

    def _file(self, entry: Entry, dialogue: Dialogue) -> None:
        """Write a message that has its id, and tell its receiver that."""
        message = entry.message
        self.filer.file((entry, dialogue, message.raw))
        if not message.is_plain:
            self._note_remark(message, entry, dialogue.folders)
        if dialogue.named:
            entry.message = named(message, dialogue.named, entry.id)
        entry.is_sent = dialogue.is_sent

    def _dialogue(
        self, origin: Origin, to: Jid, *, is_barred: bool = False
    ) -> Dialogue | Awaitable[None] | None:
        """In which archives what is said to an address is kept, None for none; what is to be awaited first,
        where that is not known. If it `is_barred` its receiver gets nothing of it.
        """
        sender, receiver = origin.account, to.bare
        sides = [(sender, to.full)]
        if receiver != sender and not is_barred:
            sides.append((receiver, origin.full))
        folders: list[Folder] = []
        is_for_good = not is_barred
        for account, peer in sides:
            if not self._is_ours(account):
                continue
            owner = self._last_known(account)
            if owner is None and not self._is_nobody(account):
                if (waiting := self._learn(account)) is not None:
                    return waiting
                owner = self._known.get(account)
            if owner is None:
                is_for_good = False
                continue
            bare = peer.partition("/")[0]
            is_for_good = is_for_good and owner.preferences.keeps_all
            is_kept = owner.preferences.keeps(peer)
            if is_kept is None and (is_kept := self._is_listed(account, bare)) is None:
                return self._look_up(account, bare)
            if is_kept:
                folders.append(Folder(account, owner.uid, bare, self.lives.of(account)))
        if not folders:
            return None
        accounts = tuple([folder.account for folder in folders])
        dialogue = Dialogue(
            receiver,
            folders,
            accounts,
            is_sent=sender in accounts and sender != receiver,
            named=id_of_archive(receiver) if receiver in accounts else b"",
            changes=self._changes,
        )
        if is_for_good:
            self._dialogues.put((sender, receiver), dialogue)
        return dialogue

    @hooks.message_unclaimed.at(hooks.FILTER, hooks.LAST)
    def keep(self, account: str, message: Stanza) -> Stanza | hooks.Drop:
        """Nobody is there, and nobody else keeps it: it is in the archive."""
        session = self.server.session(message.to) if message.to else None
        takes = session.takes_messages if session is not None else self.server.takes_messages(account)
        sender = message.attrs.get("from", "").partition("/")[0]
        if takes and not self.server.appears_offline(account, sender):
            return message  # who has come meanwhile is given it
        is_kept = STANZA_ID in message.raw and any(
            child.get("by") == account for child in message.xml.iterfind(f"{{{ns.STANZA_ID}}}stanza-id")
        )
        return hooks.KEPT if is_kept else message

    # reading

    @iq_get(QUERY, ACCOUNT)
    def fields(self, request: Request) -> Element:
        """What may be asked for (XEP-0313 4.1.5)."""
        self._only_own(request)
        return element(QUERY, None, form())

    @iq_set(QUERY, ACCOUNT)
    def query(self, request: Request) -> bytes | Awaitable[bytes]:
        """Messages of the sender's own archive (XEP-0313 4). While one searches, others of its stanzas are
        processed.
        """
        self._only_own(request)
        query = query_of(request.payload, self.config.page, self.config.page_most)
        self.asked.inc()
        asked = self._give(request, query)
        return begun(asked) if query.words is None else Later(asked)

    async def _give(self, request: Request, query: Query) -> bytes:
        owner = await self._owner(request.target)
        reader, oldest = self._reader(owner), self.lives.oldest(request.target)
        horizon = await self.horizon(request.target)
        if query.words is None:
            page = await reader.page(query, oldest, horizon, self._newest())
        else:
            self.searched.inc()
            with self.allowance.one(request.target):
                page = await reader.search(
                    query,
                    query.words,
                    oldest,
                    horizon,
                    most=self.config.searched,
                    is_over=lambda: request.session.is_over,
                )
        given = request.session.give_pieces(
            self._results(request.session, query.id, page, is_flipped=query.is_flipped)
        )
        if given is not None:
            await given
        if request.session.presence is None:
            self.caught_up[request.session].note(query, page, horizon)
        return fin(page)

    def _newest(self) -> bytes:
        """What is larger than the ids of all archives; b"" where clocks of others have a say in that. That of
        a node which is gone may have been ahead.
        """
        return b"" if self.server.has_other_nodes else bound(self.server.ids.time.read() + AHEAD)

    @hooks.messages_recalled
    async def recall(self, account: str, ids: Sequence[str], session: Session | None) -> dict[str, bytes]:
        """Those of its messages that a session has not asked for itself, with their ids and moments."""
        owner = await self._sure(account)
        if owner is None:
            return {}
        read = self.caught_up[session] if session is not None else CaughtUp()
        wanted = [id for id in map(from_text, ids) if id is not None and not read.has(id)]
        domain, whose = account.rpartition("@")[2], id_of_archive(account)
        recalled: dict[str, bytes] = {}
        for found in await self._reader(owner).found(wanted):
            text = to_text(found.id)
            raw = stamped(Stanza("message", {}, found.stanza), domain, at_of(found.id) / MICROSECONDS)
            recalled[text] = named(Stanza("message", {}, raw), whose, found.id).raw
        return recalled

    @offered
    async def last_with(
        self, account: str, peer: str, count: int, until: float = 0.0
    ) -> list[tuple[float, str, bytes]]:
        """The last messages, of before `until` (0.0: now), that an archive has with an account, oldest first:
        the moment in seconds since the epoch, the id, the message. Nothing of who has no archive; StoreError.
        """
        if await self.uid_of(account) is None:
            return []
        before = bound(round(until * MICROSECONDS)) if until else b""
        query = Query("", b"", before, (), peer, "", None, True, count, False)
        oldest, horizon = self.lives.oldest(account), await self.horizon(account)
        page = await self._reader(await self._owner(account)).page(query, oldest, horizon)
        return [(at_of(row[0]) / MICROSECONDS, to_text(row[0]), row[-1]) for row in page.messages]

    @iq_get(METADATA, ACCOUNT)
    async def ends(self, request: Request) -> Element:
        """The first and the last message (XEP-0313 5)."""
        self._only_own(request)
        return await self._metadata(request.target, PAGE_SECONDS)

    @takes_at_bind("", "")
    def tell_ends(self, session: Session, asked: Element | None) -> bytes | Awaitable[bytes]:
        """The same for a client that binds together with its login (XEP-0386 3.2): what comes from now on it
        is sent. Without an answer the session is as good: it waits for no node that hangs.
        """
        return b"" if session.is_anonymous else begun(self._tell_ends(session.account))

    async def _tell_ends(self, account: str) -> bytes:
        try:
            return serialize(await self._metadata(account, BIND_SECONDS))
        except (StanzaError, StoreError):
            return b""

    async def _metadata(self, account: str, seconds: float) -> Element:
        owner = await self._owner(account)
        horizon = await self.horizon(account, seconds)
        ends = await self._reader(owner).ends(self.lives.oldest(account), horizon)
        names = zip(("start", "end"), ends or (), strict=False)
        about = (
            element(f"{{{ns.MAM}}}{name}", {"id": to_text(id), "timestamp": stamp_of(id)})
            for name, id in names
        )
        return element(METADATA, None, *about)

    def _only_own(self, request: Request) -> None:
        if not request.is_own or not isinstance(request.origin, Session):
            raise StanzaError("forbidden", "This is somebody else's archive.")

    def _reader(self, owner: Owner) -> Searcher:
        return Searcher(self.messages, self.days, self.months, owner.uid, self.by_peer, self.since(owner.uid))

    def _results(
        self, session: Session, query_id: str, page: Page, *, is_flipped: bool
    ) -> Iterator[list[bytes]]:
        """Each message of a page as a stanza (XEP-0313 4.2, XEP-0297), some at a time."""
        messages = page.messages[::-1] if is_flipped else page.messages
        ids = [message[0] for message in messages]
        named = f" queryid='{escape_attribute(query_id)}'" if query_id else ""
        head = (
            f"<message from='{escape_attribute(session.account)}' to='{escape_attribute(session.full)}'>"
            f"<result xmlns='{ns.MAM}'{named} id='"
        ).encode()
        some, size = list[bytes](), 0
        for text, stamp, message in zip(texts_of(ids), STAMPS.of(ids), messages, strict=True):
            stanza = b"".join((head, text, stamp, message[-1][8:], RESULT_END))
            some.append(stanza)
            size += len(stanza)
            if size > PIECE:
                yield some
                some, size = [], 0
        if some:
            yield some

    # preferences

    @iq_get(PREFS, ACCOUNT)
    async def preferences(self, request: Request) -> Element:
        """Which messages are kept (XEP-0441 2.1)."""
        self._only_own(request)
        return (await self._owner(request.target)).preferences.xml()

    @iq_set(PREFS, ACCOUNT)
    async def prefer(self, request: Request) -> Element:
        """Keep other ones from now on."""
        self._only_own(request)
        account = request.target
        wanted = preferences_of(request.payload)
        owner = await self._owner(account)
        row = {"account": account, **wanted.columns()}
        if not await self.owners.put_if(row, {"uid": owner.uid}):
            raise StanzaError("item-not-found", "There is no archive.")
        self.changed.tell(account)
        return wanted.xml()

    def _is_listed(self, account: str, peer: str) -> bool | None:
        """Whether the peer is in the roster, if that was looked up lately."""
        is_listed, until = self._listed.get((account, peer)) or (False, 0.0)
        return is_listed if until > self.now() else None

    async def _look_up(self, account: str, peer: str) -> None:
        is_listed = await self.server.rosters.item(account, peer) is not None
        self._listed.put((account, peer), (is_listed, self.now() + LISTED_SECONDS))

    # the end

    @hooks.account_removed
    async def forget(self, account: str) -> None:
        """Delete the archive; who has the name next gets another one anyway."""
        await self.forget_owner(account)
        await self.behind.delete(account)
        self.owner_changed(account)  # it may have been read before it was deleted


STANZA_ID: Final = f"<stanza-id xmlns='{ns.STANZA_ID}' by='".encode()
MESSAGE_END: Final = b"</message>"
NAMED_END: Final = b"'/></message>"


def id_of_archive(account: str) -> bytes:
    """What the id that a message has in the archive of an account begins with (XEP-0359)."""
    return STANZA_ID + f"{escape_attribute(account)}' id='".encode()


def named(message: Stanza, whose: bytes, id: bytes) -> Stanza:
    """The message with the id that it has in the archive `whose` ids begin so."""
    raw = message.raw
    if raw[-10:] == MESSAGE_END:
        raw = b"".join((raw[:-10], whose, to_letters(id), NAMED_END))
    else:
        raw = insert_child(raw, "message", b"".join((whose, to_letters(id), b"'/>")))
    return Stanza("message", message.attrs, raw)


def fin(page: Page) -> bytes:
    """What tells that a page was given (XEP-0313 4.3)."""
    is_complete = " complete='true'" if page.is_complete else ""
    texts = [to_text(id) for id in page.ends]
    ends = f"<first>{texts[0]}</first><last>{texts[1]}</last>" if texts else ""
    return f"<fin xmlns='{ns.MAM}'{is_complete}><set xmlns='{ns.RSM}'>{ends}</set></fin>".encode()
