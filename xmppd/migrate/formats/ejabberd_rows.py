"""Rows of ejabberd and of its descendants, as what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.core.roster.subscription import Subscription
from xmppd.migrate.blocks import ACTIONS, TYPES, PrivacyItem, kinds_of, number
from xmppd.migrate.delays import without_delay
from xmppd.migrate.fragments import BadXml, element_of
from xmppd.migrate.keys import from_base64, keys_of
from xmppd.migrate.record import Account, Contact, Losses, Offline
from xmppd.xml.build import element

SUBSCRIPTIONS: Final[Mapping[str, Subscription]] = {"N": "none", "T": "to", "F": "from", "B": "both"}
ASKS: Final[Mapping[str, tuple[bool, bool]]] = {
    "N": (False, False),
    "O": (True, False),
    "I": (False, True),
    "B": (True, True),
    "S": (True, False),
    "U": (False, False),
}
"""Letters of `ask` -> whether the owner asks, and whether the contact does; S and U are old ones."""

STATES: Final[Mapping[tuple[object, object], tuple[Subscription, bool, bool]]] = {
    (letter, ask): (subscription, *asks)
    for letter, subscription in SUBSCRIPTIONS.items()
    for ask, asks in ASKS.items()
}

LATEST: Final = 1e11
"""Seconds since the epoch that nobody means."""

NEVER: Final = "Registered but didn't login"
"""The state of an account that was never logged in: its time is that of the registration."""

PREFIXES: Final = ("sha256:", "sha512:", "sha1:", "sha:")
PLAIN: Final = 1
"""The `type` of a plain password; 0 is not said, others are hashes."""


def is_set(value: object) -> bool:
    """Whether a boolean of any database is true."""
    return str(value).strip().lower() in ("1", "t", "true", "y", "yes", "\x01")


def password_of(rows: Iterable[tuple[Any, ...]], account: Account, losses: Losses) -> None:
    """Take what `users` has: rows of (type, password, serverkey, salt, iterationcount)."""
    for kind, password, server, salt, iterations in rows:
        stored = str(password or "")
        is_plain = number(kind or 0) == PLAIN or not (server or salt or number(iterations or 0))
        if is_plain:
            account.password = stored or account.password
            continue
        for prefix in PREFIXES:
            stored = stored.removeprefix(prefix)
        keys = (from_base64(stored), from_base64(str(server or "")), from_base64(str(salt or "")))
        found = keys_of(*keys, iterations)
        if found is None:
            losses.add("unusable-keys", account.name, "not two keys of one hash with salt and iterations")
        else:
            account.keys.setdefault(*found)


class Roster:
    """The roster of one account, of rows of contacts and rows of groups."""

    def __init__(self, account: Account, losses: Losses) -> None:
        self._account, self._losses = account, losses
        self._seen: dict[Any, list[Contact]] = {}

    def take(self, rows: Iterable[tuple[Any, ...]], groups: Iterable[tuple[Any, ...]]) -> None:
        """Rows of (..., jid, nick, subscription, ask, askmessage, approved), and of (..., jid, group), where
        three columns of no meaning are first.
        """
        name = self._account.name
        for row in rows:
            self._contact(*row)
        unknown = 0
        for _, _, _, jid, group in groups:
            contacts = self._seen.get(jid)
            if contacts is None:
                unknown += 1
                continue
            for contact in contacts:
                self._group(contact, group)
        if unknown:
            self._losses.add(
                "orphan-group", name, f"{unknown} groups of contacts that are not there", unknown
            )
        for contact in self._account.roster:
            if contact.pending and contact.subscription == "none" and not contact.ask:
                contact.listed = contact.name is not None or bool(contact.groups)

    def _group(self, contact: Contact, group: Any) -> None:
        group = "" if group is None else str(group)
        if group in contact.groups:
            self._losses.add("duplicate-group", self._account.name, contact.jid)
        elif group:
            contact.groups.append(group)

    def _contact(
        self,
        _d: Any,
        _l: Any,
        _s: Any,
        key: Any,
        nick: Any,
        letter: Any,
        ask: Any,
        message: Any,
        approved: Any,
    ) -> None:
        state = STATES.get((letter, ask)) or self._odd_state(key, letter, ask)
        jid = key if isinstance(key, str) else _str(key)
        name = None if nick is None or nick == "" else str(nick)
        contact = Contact(jid, *state, approved is not None and is_set(approved), name)
        if contact.pending and message not in (None, ""):
            contact.request = request_of(jid, str(message))
        if key in self._seen:
            self._losses.add("duplicate-contact", self._account.name, jid)
            self._seen[key].append(contact)
        else:
            self._seen[key] = [contact]
        self._account.roster.append(contact)

    def _odd_state(self, jid: Any, letter: Any, ask: Any) -> tuple[Subscription, bool, bool]:
        """Letters with blanks (of CHAR columns), small ones, or none that are known."""
        letters = str(letter).strip().upper(), str(ask).strip().upper()
        subscription, asks = SUBSCRIPTIONS.get(letters[0]), ASKS.get(letters[1])
        for kind, found in (("unknown-subscription", subscription), ("unknown-ask", asks)):
            if found is None:
                self._losses.add(kind, self._account.name, f"{jid}: taken as none")
        return subscription or "none", *(asks or (False, False))


def _str(value: object) -> str:
    return "" if value is None else str(value)


def request_of(jid: str, status: str) -> Element:
    """The request of a contact of which only the text is kept."""
    text = element(f"{{{ns.CLIENT}}}status", None, status)
    return element(f"{{{ns.CLIENT}}}presence", {"from": jid, "type": "subscribe"}, text)


def privacy_item(row: tuple[Any, ...]) -> PrivacyItem:
    """An item of (t, value, action, ord, match_all, match_iq, match_message, match_presence_in and _out)."""
    kind, value, action, order, everything, *kinds = row
    return PrivacyItem(
        ACTIONS.get(str(action).strip(), str(action)),
        number(order),
        TYPES.get(
            str(kind).strip(), {"s": "subscription", "j": "jid", "g": "group"}.get(str(kind), str(kind))
        ),
        "" if value is None else str(value),
        frozenset() if is_set(everything) else kinds_of(*map(is_set, kinds)),
    )


def last_of(seconds: Any, state: Any, account: Account) -> None:
    """Take a row of `last`."""
    try:
        at = float(str(seconds))
    except ValueError:
        return
    if not 0 < at < LATEST:
        return
    if state == NEVER:
        account.created = at
    else:
        account.last, account.last_status = at, _str(state)


def tree_of(text: Any, what: str, account: Account, losses: Losses) -> Element | None:
    """An element kept as text; None with a loss `unreadable-...` where it is none."""
    try:
        return element_of(text if isinstance(text, str | bytes) else str(text or ""))
    except BadXml as bad:
        losses.add(f"unreadable-{what}", account.name, str(bad))
        return None


def offline_of(text: Any, account: Account, losses: Losses, at: float | None = None) -> None:
    """Take a message that waits, of a text; `at` is when it came, where the table says so."""
    tree = tree_of(text, "message", account, losses)
    if tree is None:
        return
    if tree.tag != f"{{{ns.CLIENT}}}message":
        losses.add("unreadable-message", account.name, f"is {tree.tag}")
        return
    added = without_delay(tree, account.domain)
    account.offline.append(Offline(tree, at if added is None else added))
