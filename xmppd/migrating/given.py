"""What `migrate give` says of an account, as a record like any reader's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from xmppd import ns
from xmppd.core.accounts import ACCOUNT
from xmppd.core.credentials import keys_in
from xmppd.core.roster.item import RosterItem, item_from
from xmppd.migrate.fragments import BadXml, element_of
from xmppd.migrate.record import Account, Contact, Keys, Losses, Offline

NAMES = 20
NAME_BYTES = 30_000
"""Accounts that are asked for at once, and how long their names may be together: a socket takes 64 KiB."""


class Door(Protocol):
    """Where commands are done: in the running server, or on the store alone."""

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Run a command; its result, or CommandError."""


def everything(door: Door) -> Iterator[dict[str, Any]]:
    """All accounts with all they have."""
    after = ""
    while True:
        page = door.call("migrate give", {"after": after})
        yield from page["accounts"]
        if not (after := page["after"]):
            return


def names_here(door: Door) -> Iterator[str]:
    """The names of all accounts."""
    after = ""
    while True:
        page = door.call("migrate names", {"after": after})
        yield from page["accounts"]
        if not (after := page["after"]):
            return


def of_names(door: Door, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """These accounts by name; what is not there is left out."""
    found: dict[str, dict[str, Any]] = {}
    for some in pieces(names, NAMES):
        page = door.call("migrate give", {"account": some})
        found |= {row["account"]: row for row in page["accounts"]}
    return found


def pieces(names: Sequence[str], most: int) -> Iterator[list[str]]:
    """The names, so many at a time, and fewer where they are long."""
    piece: list[str] = []
    size = 0
    for name in names:
        piece.append(name)
        size += len(name.encode())
        if len(piece) == most or size > NAME_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def keys_of(row: Mapping[str, Any]) -> dict[str, Keys]:
    """The keys of a given account by hash."""
    columns = {**dict.fromkeys(ACCOUNT.columns), **row["credentials"]}
    return {name: Keys(*keys) for name, keys in keys_in(columns).items()}


def items_of(row: Mapping[str, Any]) -> list[RosterItem]:
    """Its roster."""
    return [item_from(contact, packed) for contact, packed in row["parts"].get("roster", ())]


def record_of(row: Mapping[str, Any], losses: Losses) -> Account:
    """A given account as a record; what is no XML, and kinds that no record has, are losses."""
    local, _, domain = row["account"].rpartition("@")
    account = Account(local, domain, keys=keys_of(row), disabled=row["disabled"], created=row["created"])
    account.roster = [contact_of(item) for item in items_of(row)]
    parts = dict(row["parts"])
    account.blocks = list(parts.get("blocks", ()))
    account.last = parts.get("last")
    try:
        if "vcard" in parts:
            account.vcard = element_of(parts["vcard"])
        for text in parts.get("private", {}).values():
            around = element_of(f"<query xmlns='{ns.PRIVATE}'>{text}</query>")
            account.private += list(around)
        account.offline = [Offline(element_of(stanza)) for stanza, _ in parts.get("offline", ())]
    except BadXml as error:
        losses.add("not-xml", account.name, str(error))
    for kind in parts.keys() - {"roster", "blocks", "last", "vcard", "private", "offline"}:
        losses.add(f"kind-{kind}", account.name)
    return account


def contact_of(item: RosterItem) -> Contact:
    """A roster item as a contact of a record."""
    request = element_of(item.request) if item.request.startswith(b"<") else None
    return Contact(
        item.contact,
        item.subscription,
        item.ask,
        item.pending_in,
        item.approved,
        item.name or None,
        list(item.groups),
        request,
        listed=not item.hidden,
    )
