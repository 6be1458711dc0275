"""The server's own events, where each is told, and what shows of those that are durable whether one happened
(`Intent`). A source is a part of the hooks only while somebody listens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

from xmppd import hooks, ns
from xmppd.core.accounts import Accounts
from xmppd.core.blocking import AbuseReport, Blocking
from xmppd.core.credentials import is_made_at, settled
from xmppd.core.events import EventField, EventKind, Events, Told
from xmppd.core.intents import Data, Intent
from xmppd.core.later import Later
from xmppd.core.messages import Messages
from xmppd.core.origin import Origin
from xmppd.core.roster.item import RosterItem, settled_version
from xmppd.core.roster.rosters import Change, Rosters
from xmppd.core.sessions import Session, Sessions
from xmppd.store.table import Store
from xmppd.xml.stanza import Stanza

CREATED: Final = EventKind("account.created", "An account was made.")
REMOVED: Final = EventKind("account.removed", "An account was removed, with all that it had.")
ERASED: Final = EventKind(
    "account.erased", "All that was kept of a person was erased by command: forget it, too."
)
CHANGED: Final = EventKind(
    "account.changed",
    "An account has another password, or was disabled or enabled.",
    {"what": EventField("text", "`password`, `disabled` or `enabled`")},
    {"what": "disabled"},
    key=("what",),
)
RENAMED: Final = EventKind(
    "account.renamed",
    "An account has another address. Told of both addresses, first of the old one, so that each is in order.",
    {
        "old": EventField("text", "the address that it had"),
        "new": EventField("text", "the address that it has"),
    },
    {"old": "zoe@example.org", "new": "zoe.new@example.org"},
)
MIGRATED: Final = EventKind(
    "account.migrated",
    "A migration made an account, changed what one has, or took that back.",
    {
        "what": EventField("text", "`made`, `changed`, `removed` or `restored`"),
        "run": EventField("text", "the name of the migration"),
    },
    {"what": "made", "run": "2026-11-29"},
    is_asked=True,
)
STARTED: Final = EventKind(
    "session.started",
    "A session was bound, or came from another node.",
    {
        "resource": EventField("text", "its resource"),
        "peer": EventField("text", "the network address of its client"),
        "mechanism": EventField("text", "how it logged in"),
    },
    {"resource": "phone", "peer": "203.0.113.7", "mechanism": "SCRAM-SHA-256"},
)
ENDED: Final = EventKind(
    "session.ended",
    "A session is over, or went to another node.",
    {
        "resource": EventField("text", "its resource"),
        "reason": EventField("text", "`closed`, or the condition of the stream error that it ended with"),
        "seconds": EventField("number", "how long it was on this node"),
    },
    {"resource": "phone", "reason": "closed", "seconds": 312.5},
)
PRESENCE: Final = EventKind(
    "presence.changed",
    "Contacts of an account see other presence of one of its resources.",
    {
        "resource": EventField("text", "whose presence it is"),
        "available": EventField("flag", "whether it is there"),
        "show": EventField("text", '`away`, `chat`, `dnd`, `xa` or ""'),
        "status": EventField("text", "what it says"),
        "priority": EventField("number", "its priority"),
        "anywhere": EventField("flag", "whether any resource of the account is available"),
    },
    {
        "resource": "phone",
        "available": True,
        "show": "away",
        "status": "in a match",
        "priority": 0,
        "anywhere": True,
    },
)
MESSAGE: Final = EventKind(
    "message.routed",
    "A message to an account was delivered, kept, dropped or refused.",
    {
        "from": EventField("text", "the address of its sender"),
        "to": EventField("text", "the account that it was for"),
        "type": EventField("text", "`chat`, `normal` and so on"),
        "id": EventField("text", "the id that its sender gave it", optional=True),
        "outcome": EventField(
            "text", "`delivered`, `kept`, `dropped`, `refused` or, where a kill came first, `unknown`"
        ),
        "body": EventField("text", "what it says, for who asked for bodies", optional=True),
    },
    {
        "from": "alice@example.org/phone",
        "to": "bob@example.org",
        "type": "chat",
        "id": "m1",
        "outcome": "delivered",
        "body": None,
    },
    is_asked=True,
    key=("from", "to", "type", "id"),
)
ITEM: Final = {"name": "Bob", "subscription": "both", "ask": False, "groups": ["friends"]}
ROSTER: Final = EventKind(
    "roster.changed",
    "An item of a roster was added, changed or removed; each side of a subscription tells its own.",
    {
        "contact": EventField("text", "whom the item is about"),
        "before": EventField(
            "object", "`name`, `subscription`, `ask` and `groups`; null: no item", optional=True
        ),
        "after": EventField("object", "the same, as it is now", optional=True),
        "friends": EventField("flag", "whether both see each other's presence now"),
    },
    {"contact": "bob@example.org", "before": None, "after": ITEM, "friends": True},
    key=("contact",),
)
REPORTED: Final = EventKind(
    "report.made",
    "An account blocked somebody, and said why.",
    {
        "reported": EventField("text", "who was reported"),
        "reason": EventField("text", "a URN"),
        "texts": EventField("texts", "what was said about it"),
        "stanza_ids": EventField("texts", "ids of the messages meant"),
    },
    {
        "reported": "spammer@example.org",
        "reason": ns.REPORTING_SPAM,
        "texts": ["sells gold"],
        "stanza_ids": ["0005f3"],
    },
    key=("reported",),
)
UP: Final = EventKind(
    "node.started", "A node works: what sessions its last process had, and did not tell the end of, are over."
)
LOST: Final = EventKind(
    "node.lost",
    "A node was given up, and its sessions are over; told by each of the others.",
    {"lost": EventField("text", "its name")},
    {"lost": "chat2.example.org:5270"},
)

WITHOUT_DATA: Final = {"removed": REMOVED, "erased": ERASED}
BODY: Final = f"{{{ns.CLIENT}}}body"
SHOW: Final = f"{{{ns.CLIENT}}}show"
STATUS: Final = f"{{{ns.CLIENT}}}status"


class Source:
    """Tells the events of its `kinds`."""

    name = "events"
    kinds: ClassVar[tuple[EventKind, ...]] = ()

    def __init__(self, events: Events) -> None:
        self.events = events

    def kept(self) -> None:
        """Its events are kept from now on: have those that are about to happen written down."""

    async def happened(self, kind: EventKind, account: str, data: Data, about: Data) -> Data | None:
        """See `Happened`. Where nothing shows it, it did."""
        return data


class AccountSource(Source):
    """What was done to an account is acknowledged when this is done. Making one and changing one are
    foreseen; whoever begins something else tells it before that is done, and goes on with it after a kill.
    """

    kinds = (CREATED, REMOVED, ERASED, CHANGED, RENAMED, MIGRATED)

    def __init__(self, events: Events, accounts: Accounts, store: Store) -> None:
        super().__init__(events)
        self._store = store
        self._accounts = accounts

    def kept(self) -> None:
        """See `Source`."""
        self._accounts.intend = self.intend

    def intend(self, account: str, what: str) -> Intent | None:
        """It is about to be "created", or changed."""
        if what == "created":
            return self.events.intent(CREATED, account, {})
        return self.events.intent(CHANGED, account, {"what": what}) if what else None

    async def happened(self, kind: EventKind, account: str, data: Data, about: Data) -> Data | None:
        """By the number of the change. Of an account that is gone again its end is told. What was changed
        once more since is told as it is now: nobody can say whether the first change came to be.
        """
        row = await settled(self._store, account)
        if row is None or row["leaving"] or not is_made_at(row, about["created"]):
            return None
        if kind is CREATED or row["changed"] == about["changed"]:
            return data
        if row["changed"] == about["before"]:
            return None
        return data if data["what"] == "password" else {"what": "disabled" if row["disabled"] else "enabled"}

    @hooks.account_created.at(hooks.SIGNAL, hooks.LAST)
    def created(self, account: str) -> Told:
        """It is there, and can be logged in to."""
        return self.events.tell(CREATED, account, {})

    @hooks.account_changed
    def changed(self, account: str, what: str) -> Told:
        """It was changed, or is gone when this is done."""
        if what in WITHOUT_DATA:
            return self.events.tell(WITHOUT_DATA[what], account, {})
        return self.events.tell(CHANGED, account, {"what": what})


class SessionSource(Source):
    """Sessions are not durable, so nobody waits for what is told of them."""

    kinds = (STARTED, ENDED)

    @hooks.session_bound.at(hooks.SIGNAL, hooks.LAST)
    def started(self, session: Session) -> None:
        """Its client learns of it now."""
        login = session.login
        data = {"resource": session.resource, "peer": login.peer, "mechanism": login.mechanism}
        self.events.tell(STARTED, session.account, data)

    @hooks.session_closed.at(hooks.SIGNAL, hooks.LAST)
    def ended(self, session: Session) -> None:
        """Its unavailable presence was sent."""
        seconds = round(max(0.0, self.events.now() - session.since), 3)
        data = {"resource": session.resource, "reason": session.reason, "seconds": seconds}
        self.events.tell(ENDED, session.account, data)


class PresenceSource(Source):
    """Presence that is broadcast, once for each change. Nobody waits for this either."""

    kinds = (PRESENCE,)
    slot: ClassVar = "events.presence"

    def __init__(self, events: Events, sessions: Sessions) -> None:
        super().__init__(events)
        self._sessions = sessions

    @hooks.presence_sent.at(hooks.SIGNAL, hooks.LAST)
    def sent(self, session: Session, presence: Stanza) -> None:
        """A client said how it is."""
        if presence.to or presence.type not in (None, "unavailable"):
            return
        tree = presence.xml
        show = (tree.findtext(SHOW) or "").strip()
        status = tree.findtext(STATUS) or ""
        self._tell(session, presence.type is None, show, status)

    @hooks.session_closed.at(hooks.SIGNAL, hooks.EARLY)
    def closed(self, session: Session) -> None:
        """It is seen no more, if it was."""
        self._tell(session, False, "", "")

    def _tell(self, session: Session, available: bool, show: str, status: str) -> None:
        now = [available, show, status, session.priority if available else 0]
        if session.slots is None:
            session.slots = {}
        before = session.slots.get(self.slot, [False, "", "", 0])
        if now == before:
            return
        session.slots[self.slot] = now
        data = {
            "resource": session.resource,
            "available": available,
            "show": show,
            "status": status,
            "priority": now[3],
            "anywhere": self._sessions.is_available(session.account),
        }
        self.events.tell(PRESENCE, session.account, data)


class MessageSource(Source):
    """A message counts as handled when this is done; those behind it go on."""

    kinds = (MESSAGE,)

    def __init__(self, events: Events, messages: Messages) -> None:
        super().__init__(events)
        self._messages = messages

    def kept(self) -> None:
        """See `Source`."""
        self._messages.foresee = self._messages.unheard.foresee = self.foresee

    def foresee(self, origin: Origin, message: Stanza, account: str) -> Intent | None:
        """One is about to be routed. What becomes of it is not known, nor is it after a kill."""
        if not self.events.keeps(MESSAGE, origin.account):
            return None
        return self.events.intent(MESSAGE, origin.account, self._data(origin, message, account, "unknown"))

    @hooks.message_routed.at(hooks.SIGNAL, hooks.LAST)
    def routed(self, origin: Origin, message: Stanza, account: str, outcome: hooks.Outcome) -> Later | None:
        """It is told of its sender, so that what he says is in order."""
        data = self._data(origin, message, account, outcome.name.lower())
        told = self.events.tell(MESSAGE, origin.account, data)
        return None if told is None else Later(told)

    def _data(self, origin: Origin, message: Stanza, account: str, outcome: str) -> dict[str, Any]:
        return {
            "from": origin.full,
            "to": account,
            "type": message.type or "normal",
            "id": message.attrs.get("id"),
            "outcome": outcome,
            "body": message.xml.findtext(BODY),
        }


class RosterSource(Source):
    """A change is acknowledged when this is done."""

    kinds = (ROSTER,)

    def __init__(self, events: Events, rosters: Rosters, store: Store) -> None:
        super().__init__(events)
        self._rosters = rosters
        self._store = store

    def kept(self) -> None:
        """See `Source`."""
        self._rosters.intend = self.intend

    def intend(
        self, account: str, contact: str, old: RosterItem | None, new: RosterItem | None
    ) -> Intent | None:
        """An item is about to be changed."""
        if not self.events.keeps(ROSTER, account) or (data := changed(contact, old, new)) is None:
            return None
        return self.events.intent(ROSTER, account, data)

    async def happened(self, kind: EventKind, account: str, data: Data, about: Data) -> Data | None:
        """By the version that it makes, and by the log. What has another version by now is told as it is."""
        version = await settled_version(self._store, account)
        if version == about["version"]:
            return data
        if version == about["before"]:
            return None
        entries = await self._rosters.log(account, after=about["before"], limit=1)
        if entries and entries[0].before == about["before"] and entries[0].version != about["version"]:
            return None  # somebody else has changed that version
        after = shown(await self._rosters.get_item(account, data["contact"]))
        return {**data, "after": after, "friends": is_mutual(after)}

    @hooks.roster_changed.at(hooks.RECORD)
    def changed(self, account: str, change: Change) -> Told:
        """What is not visible to clients is not told either."""
        data = changed(change.contact, change.old, change.new)
        return None if data is None else self.events.tell(ROSTER, account, data)


class ReportSource(Source):
    """Reports come with a block, which is acknowledged when this is done."""

    kinds = (REPORTED,)

    def __init__(self, events: Events, blocking: Blocking) -> None:
        super().__init__(events)
        self._blocking = blocking

    def kept(self) -> None:
        """See `Source`."""
        self._blocking.intend = self.intend

    def intend(self, report: AbuseReport) -> Intent | None:
        """Somebody is about to be blocked, and reported."""
        return self.events.intent(REPORTED, report.account, said(report))

    async def happened(self, kind: EventKind, account: str, data: Data, about: Data) -> Data | None:
        """By the block."""
        return data if data["reported"] in await self._blocking.of(account) else None

    @hooks.reported.at(hooks.SIGNAL, hooks.LAST)
    def made(self, report: AbuseReport) -> Told:
        """Who was reported is in the data: the event is one of who reports."""
        return self.events.tell(REPORTED, report.account, said(report))


class NodeSource(Source):
    """What tells readers that sessions are over of which nobody said so."""

    kinds = (UP, LOST)

    def started(self) -> None:
        """This node works."""
        self.events.tell(UP, "", {})

    @hooks.node_lost
    def lost(self, node: str) -> None:
        """Another one does not."""
        self.events.tell(LOST, "", {"lost": node})


def sources(
    events: Events,
    store: Store,
    sessions: Sessions,
    accounts: Accounts,
    messages: Messages,
    rosters: Rosters,
    blocking: Blocking,
) -> list[Source]:
    """All of them. Who does what is durable asks them from now on."""
    return [
        AccountSource(events, accounts, store),
        SessionSource(events),
        PresenceSource(events, sessions),
        MessageSource(events, messages),
        RosterSource(events, rosters, store),
        ReportSource(events, blocking),
        NodeSource(events),
    ]


def migrated(events: Events) -> Callable[[str, str, str], Told]:
    """Tells what a run of a migration did to an account (account, what, run)."""
    return lambda account, what, run: events.tell(MIGRATED, account, {"what": what, "run": run})


def shown(item: RosterItem | None) -> dict[str, Any] | None:
    """What clients see of an item."""
    if item is None or item.hidden:
        return None
    return {
        "name": item.name,
        "subscription": item.subscription,
        "ask": bool(item.ask),
        "groups": [*item.groups],
    }


def changed(contact: str, old: RosterItem | None, new: RosterItem | None) -> dict[str, Any] | None:
    """What is told of a change of an item; None where clients see no difference."""
    before, after = shown(old), shown(new)
    if before == after:
        return None
    return {"contact": contact, "before": before, "after": after, "friends": is_mutual(after)}


def is_mutual(item: dict[str, Any] | None) -> bool:
    """Whether both see each other's presence."""
    return item is not None and item["subscription"] == "both"


def said(report: AbuseReport) -> dict[str, Any]:
    """What is told of a report."""
    return {
        "reported": report.reported,
        "reason": report.reason,
        "texts": [text for _, text in report.texts],
        "stanza_ids": [number for _, number in report.stanza_ids],
    }
