"""What the stores of Prosody say of one account, wherever they are kept: files (internal storage) or SQL.

Both hand in `Stores`, whose values are tables of `lua`. What is broken in the stores that make an account
(`accounts`, `roster`, `blocklist`) makes it unreadable; what is broken elsewhere, or one broken contact,
message or element, is a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol, get_args
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.core.roster.subscription import Subscription
from xmppd.migrate.blocks import PrivacyItem, blocks_of_privacy, kinds_of, number
from xmppd.migrate.fragments import BadXml
from xmppd.migrate.keys import from_hex, keys_of
from xmppd.migrate.prosody.lua import Flag, Table, Value
from xmppd.migrate.prosody.stanza import ADDED, stanza_of
from xmppd.migrate.record import Account, Contact, Losses, Offline, Unreadable
from xmppd.migrate.vcards import vcard_of_nodes

PEP: Final = "pep_"
VCARD_STORES: Final = {PEP + node: node for node in (ns.VCARD4_NODE, ns.AVATAR_DATA, ns.AVATAR_METADATA)}
"""Stores of the PEP nodes in which mod_vcard_legacy keeps vCards."""

TABLES: Final = frozenset(
    (
        "accounts",
        "account_details",
        "roster",
        "vcard",
        "private",
        "blocklist",
        "privacy",
        "lastlog",
        "lastlog2",
        "account_activity",
    )
)
"""Stores that are one table an account, and are read."""

LISTS: Final = frozenset(("offline", *VCARD_STORES))
"""Stores that are archives, and are read."""

PENDING: Final = "pending"
"""Under this key requests wait, in the metadata or, in old files, beside the contacts."""

SUBSCRIPTIONS: Final[dict[str, Subscription]] = {name: name for name in get_args(Subscription)}


@dataclass(frozen=True, slots=True)
class Item:
    """One item of an archive: its key, when it was stored (seconds), and the stanza."""

    key: str
    when: float | None
    stanza: Value


class BrokenStore(Exception):
    """A store of one account cannot be read: why, and where."""

    def __init__(self, why: str, where: str) -> None:
        super().__init__(f"{why} ({where})")
        self.why, self.where = why, where


class Stores(Protocol):
    """All that one account has stored."""

    def usual_contacts(self) -> list[Contact] | None:
        """Its roster, where that can be had without its table, which means the same. BrokenStore."""

    def table(self, store: str) -> Table | None:
        """What one of TABLES has; None for nothing. BrokenStore."""

    def items(self, store: str) -> Iterable[Item]:
        """What one of LISTS has, as it was stored in turn. BrokenStore behind the last good one."""


def item_of(table: Table) -> Item:
    """An item of an archive that is kept as a table with the stanza."""
    key, when = table.get("key"), table.get("when")
    if not isinstance(when, int | float) or isinstance(when, bool):
        attrs = table.get("attr")
        when = _stamped(attrs) if isinstance(attrs, dict) else None
    return Item(key if isinstance(key, str) else "", when, table)


def _stamped(attrs: Table) -> float | None:
    """When an item of Prosody before 0.10 was stored, which stands in an attribute (XEP-0082, XEP-0091)."""
    for name in ("stamp", "stamp_legacy"):
        text = attrs.get(name)
        if isinstance(text, str):
            try:
                at = datetime.fromisoformat(text)
            except ValueError:
                continue
            return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    return None


def lost_store(store: str) -> tuple[str, str]:
    """The kind of loss that a store is which is not read, and which one it is."""
    if store.startswith(PEP):
        return "pep-node", shown(store.removeprefix(PEP))
    if store == "pep":
        return "pep-configuration", ""
    return f"store-{shown(store)}", ""


def account_of(local: str, domain: str, where: str, stores: Stores, losses: Losses) -> Account | Unreadable:
    """The account of this name, for which there is something in the store `accounts`."""
    account = Account(local, domain, where)
    if not (is_text(local) and is_text(domain)):
        return Unreadable(shown(account.name), "the name is not UTF-8", where)
    try:
        _credentials(account, stores.table("accounts"), losses)
        account.roster = _roster(account, stores, losses)
        account.blocks = _blocked(stores.table("blocklist"), account.name, losses)
    except BrokenStore as broken:
        return Unreadable(account.name, broken.why, broken.where)
    _rest(account, stores, losses)
    return account


def _roster(account: Account, stores: Stores, losses: Losses) -> list[Contact]:
    usual = stores.usual_contacts()
    if usual is not None:
        return usual
    table = stores.table("roster")
    return [] if table is None else contacts_of(table, account.name, losses)


def _rest(account: Account, stores: Stores, losses: Losses) -> None:
    """All that an account can do without."""
    readers: tuple[Callable[[Account, Stores, Losses], None], ...] = (
        _details,
        _activity,
        _vcard,
        _private,
        _privacy,
        _offline,
    )
    for read in readers:
        try:
            read(account, stores, losses)
        except BrokenStore as broken:
            losses.add("unreadable-store", account.name, str(broken))


def _credentials(account: Account, table: Table | None, losses: Losses) -> None:
    if table is None:
        raise BrokenStore("no account is in the store of accounts", account.where)
    password = table.get("password")
    if isinstance(password, str) and password:
        if is_text(password):
            account.password = password
        else:
            losses.add("unusable-password", account.name, "it is not UTF-8")
    stored, server, salt = (table.get(key) for key in ("stored_key", "server_key", "salt"))
    if isinstance(stored, str) and isinstance(server, str) and isinstance(salt, str):
        raw = salt.encode("utf-8", "surrogateescape")  # the text itself goes into Hi(), a UUID
        found = keys_of(from_hex(stored), from_hex(server), raw, table.get("iteration_count"))
        if found is not None:
            account.keys = dict([found])
    if not account.keys and (stored is not None or server is not None):
        losses.add("unusable-keys", account.name, "not two keys in hexadecimal, salt, iterations")
    account.disabled = table.get("disabled") is True
    account.created = _seconds(table.get("created"))


def contacts_of(roster: Table, account: str, losses: Losses) -> list[Contact]:
    """The contacts of a roster, and behind them those that only have asked for a subscription."""
    pending = _pending(roster, account, losses)
    contacts: list[Contact] = []
    for jid, item in roster.items():
        if jid is Flag.FALSE:
            continue
        if not (isinstance(jid, str) and isinstance(item, dict) and (jid.isascii() or is_text(jid))):
            losses.add("unreadable-contact", account, shown(str(jid)))
            continue
        if jid == PENDING and not isinstance(item.get("subscription"), str):
            continue
        if item.get("persist") is False:
            losses.add("group-file-contact", account, jid)
            continue
        contacts.append(_contact(jid, item, account, losses))
    if pending:
        _ask(contacts, pending, account, losses)
    return contacts


def _contact(jid: str, item: Table, account: str, losses: Losses) -> Contact:
    said = item.get("subscription", "none")
    subscription = SUBSCRIPTIONS.get(said) if isinstance(said, str) else None
    if subscription is None:
        losses.add("unknown-subscription", account, f"{jid}: taken as none")
        subscription = "none"
    name = item.get("name")
    if name is not None:
        name = _readable(name, account, jid, losses)
    contact = Contact(jid, subscription, ask=item.get("ask") == "subscribe", name=name)
    approved = item.get("approved")
    contact.approved = approved == "true" or approved is True
    groups = item.get("groups")
    if groups:
        contact.groups = _groups(groups, account, jid, losses)
    return contact


def _groups(groups: Value, account: str, jid: str, losses: Losses) -> list[str]:
    if not isinstance(groups, dict):
        losses.add("unreadable-group", account, jid)
        return []
    out: list[str] = []
    for group, is_in in groups.items():
        if isinstance(group, str) and is_in is not False:
            text = _readable(group, account, jid, losses)
            if text is not None:
                out.append(text)
        elif not isinstance(group, str):
            losses.add("unreadable-group", account, jid)
    return out


def _pending(roster: Table, account: str, losses: Losses) -> Table:
    """The requests that wait: beside the contacts in old files, in the metadata since then."""
    metadata, old = roster.get(Flag.FALSE), roster.get(PENDING)
    pending: Table = {}
    if isinstance(old, dict) and not isinstance(old.get("subscription"), str):
        pending.update(old)
    if isinstance(metadata, dict):
        new = metadata.get(PENDING, {})
        if isinstance(new, dict):
            pending.update(new)
        else:
            losses.add("unreadable-request", account, "what waits is no table")
        if metadata.get("broken"):
            losses.add("broken-roster", account, "Prosody could not read it and went on with less")
    return pending


def _ask(contacts: list[Contact], pending: Table, account: str, losses: Losses) -> None:
    by_jid = {contact.jid: contact for contact in contacts}
    for jid, stanza in pending.items():
        if not isinstance(jid, str) or not is_text(jid):
            losses.add("unreadable-request", account, shown(str(jid)))
            continue
        if stanza is False:
            continue
        contact = by_jid.get(jid)
        if contact is None:
            contact = Contact(jid, listed=False)
            contacts.append(contact)
        contact.pending = True
        if stanza is not True:
            contact.request = _presence(stanza, account, jid, losses)


def _presence(stanza: Value, account: str, jid: str, losses: Losses) -> Element | None:
    try:
        tree = stanza_of(stanza)
    except BadXml as bad:
        losses.add("unreadable-request", account, f"{jid}: {bad}; that there is one is kept")
        return None
    if tree.tag != f"{{{ns.CLIENT}}}presence":
        losses.add("unreadable-request", account, f"{jid}: no presence; that there is one is kept")
        return None
    return tree


def _blocked(blocklist: Table | None, account: str, losses: Losses) -> list[str]:
    blocks: list[str] = []
    for jid, since in (blocklist or {}).items():
        if jid is Flag.FALSE or since is False:
            continue
        if isinstance(jid, str) and is_text(jid):
            blocks.append(jid)
        else:
            losses.add("unreadable-block", account, shown(str(jid)))
    return blocks


def _details(account: Account, stores: Stores, losses: Losses) -> None:
    if account.created is None:
        table = stores.table("account_details") or {}
        account.created = _seconds(table.get("registered"))


def _activity(account: Account, stores: Stores, losses: Losses) -> None:
    """The newest of what mod_account_activity, mod_lastlog2 and mod_lastlog know of logins and logouts."""
    found = [_seconds((stores.table("account_activity") or {}).get("timestamp"))]
    events = stores.table("lastlog2") or {}
    for name in ("login", "logout"):
        event = events.get(name)
        if isinstance(event, dict):
            found.append(_seconds(event.get("timestamp")))
    event = stores.table("lastlog") or {}
    if event.get("event") in ("login", "logout"):
        found.append(_seconds(event.get("timestamp")))
    account.last = max((at for at in found if at is not None), default=None)


def _vcard(account: Account, stores: Stores, losses: Losses) -> None:
    table = stores.table("vcard")
    if table:
        try:
            account.vcard = stanza_of(table, ns.VCARD)
        except BadXml as bad:
            losses.add("unreadable-vcard", account.name, str(bad))
    nodes: dict[str, list[tuple[str, Element]]] = {}
    for store, node in VCARD_STORES.items():
        payloads = [(item.key, tree) for item, tree in _stanzas(account, stores, store, node, losses)]
        if payloads and account.vcard is not None:
            losses.add("pep-node", account.name, node)
        elif payloads:
            nodes[node] = payloads
    if nodes:
        account.vcard = vcard_of_nodes(nodes)


def _stanzas(
    account: Account, stores: Stores, store: str, default: str, losses: Losses
) -> Iterator[tuple[Item, Element]]:
    """The items of an archive whose stanzas can be read, with these."""
    try:
        for item in stores.items(store):
            try:
                tree = stanza_of(item.stanza, default)
            except BadXml as bad:
                losses.add("unreadable-item", account.name, f"{store}: {bad}")
                continue
            if isinstance(item.stanza, dict):
                for name in ADDED:
                    tree.attrib.pop(name, None)
            yield item, tree
    except BrokenStore as broken:
        losses.add("unreadable-store", account.name, str(broken))


def _private(account: Account, stores: Stores, losses: Losses) -> None:
    for key, stanza in (stores.table("private") or {}).items():
        name = key if isinstance(key, str) else ""
        try:
            tree = stanza_of(stanza, name.partition(":")[2])
        except BadXml as bad:
            losses.add("unreadable-private", account.name, f"{shown(name)}: {bad}")
        else:
            account.private.append(tree)


def _privacy(account: Account, stores: Stores, losses: Losses) -> None:
    """The same block may be in the default list and in the blocklist that mod_blocklist made from it."""
    table = stores.table("privacy")
    if not table:
        return
    lists: dict[str, list[PrivacyItem]] = {}
    stored = table.get("lists", {})
    for name, kept in stored.items() if isinstance(stored, dict) else ():
        items = kept.get("items", {}) if isinstance(kept, dict) else None
        if not isinstance(items, dict) or not isinstance(name, str):
            losses.add("privacy-list", account.name, f"{shown(str(name))}: not a list")
            continue
        lists[shown(name)] = list(_privacy_items(shown(name), items, account.name, losses))
    default = table.get("default")
    blocks = blocks_of_privacy(
        lists, shown(default) if isinstance(default, str) else None, account.name, losses
    )
    known = set(account.blocks)
    account.blocks += [jid for jid in blocks if jid not in known]


def _privacy_items(name: str, items: Table, account: str, losses: Losses) -> Iterator[PrivacyItem]:
    for item in items.values():
        action = item.get("action") if isinstance(item, dict) else None
        if not isinstance(item, dict) or action not in ("allow", "deny"):
            losses.add("privacy-list", account, f"{name}: not an item")
            continue
        kind, value = item.get("type", ""), item.get("value", "")
        yield PrivacyItem(
            str(action),
            number(item.get("order", 0)),
            shown(kind) if isinstance(kind, str) else "",
            shown(value) if isinstance(value, str) else "",
            kinds_of(
                item.get("iq") is True,
                item.get("message") is True,
                item.get("presence-in") is True,
                item.get("presence-out") is True,
            ),
        )


def _offline(account: Account, stores: Stores, losses: Losses) -> None:
    for item, tree in _stanzas(account, stores, "offline", ns.CLIENT, losses):
        if tree.tag == f"{{{ns.CLIENT}}}message":
            account.offline.append(Offline(tree, item.when))
        else:
            losses.add("unreadable-item", account.name, f"offline: {tree.tag}")


def _seconds(value: Value | None) -> float | None:
    """A time since the epoch; None for what is none."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1 << 40:
        return float(value)
    return None


def _readable(value: Value, account: str, jid: str, losses: Losses) -> str | None:
    """A name as text, with U+FFFD for bytes that are no UTF-8: it may have been cut within a letter."""
    if not isinstance(value, str):
        losses.add("unreadable-name", account, jid)
        return None
    if value.isascii() or is_text(value):
        return value
    losses.add("unreadable-name", account, f"{jid}: not UTF-8 in part")
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def is_text(text: str) -> bool:
    """Whether it was UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(text: str) -> str:
    """As it may be printed: bytes that are no UTF-8 as `\\udcXX`."""
    return text if is_text(text) else text.encode("utf-8", "backslashreplace").decode()
