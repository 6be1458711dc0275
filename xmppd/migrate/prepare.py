"""From what a source has to what this server can hold: addresses normalised, rows of one contact merged,
limits kept or not, and a note for everything that is not as it was.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.core.roster.item import RosterItem, is_hidden, item_from, plain_value, value_of
from xmppd.core.roster.subscription import State
from xmppd.errors import JidError
from xmppd.jid import Jid
from xmppd.migrate.addresses import AddressMap, PlainAddresses
from xmppd.migrate.merge import item_of, merged
from xmppd.migrate.record import Account, Contact, Keys, Offline
from xmppd.moments import utc_stamp
from xmppd.xml.build import delay, insert_child, serialize

OverLimit = Literal["keep", "cut", "refuse"]

_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""What no name may hold: what XML has no place for, and DEL."""

PRESENCE = f"{{{ns.CLIENT}}}presence"
KINDS = ("keys", "roster", "vcard", "private", "offline", "blocks", "last")
"""What an account has, each moved, compared and hashed by itself."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may put into an account here, and what becomes of more: it is kept all the same, cut, or
    the account is refused.
    """

    over: OverLimit = "keep"
    items: int = 1000
    groups: int = 10
    name_bytes: int = 1023
    requests: int = 200
    request_bytes: int = 10_000
    vcard_bytes: int = 131_072
    private_elements: int = 100
    private_bytes: int = 524_288
    messages: int = 1000
    message_bytes: int = 2_097_152


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that is not as it was: a short word for its kind, and which one. No secrets."""

    kind: str
    detail: str = ""


class Refused(Exception):
    """The account cannot be taken over; the text says why."""


@dataclass(slots=True)
class Prepared:
    """An account as it is to stand here. `name` is what the source calls it, `account` its bare JID here.

    `roster` has packed items (`value_of`) by contact, in order. `vcard`, the values of `private` and the
    messages are bytes as the plugins keep them; `offline` has each message with its moment (None: not known),
    in order.
    """

    account: str
    name: str
    where: str = ""
    password: str | None = field(default=None, repr=False)
    keys: Mapping[str, Keys] = field(default_factory=dict, repr=False)
    disabled: bool = False
    created: float | None = None
    last: float | None = None
    roster: dict[str, str] = field(default_factory=dict)
    vcard: bytes | None = None
    private: dict[str, bytes] = field(default_factory=dict)
    offline: list[tuple[bytes, float | None]] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


class Preparer:
    """Makes `Prepared` of accounts, one after the other. `domains` are those served here (none: any)."""

    def __init__(
        self,
        addresses: AddressMap = AddressMap(),  # noqa: B008
        limits: Limits = Limits(),
        domains: Collection[str] = (),
    ) -> None:
        self._addresses = addresses
        self._plain = PlainAddresses(addresses)
        self._limits = limits
        self._domains = domains
        self._short = limits.name_bytes // 4  # letters that are not too many, whatever they are

    def prepare(self, source: Account) -> Prepared:
        """The account as it is to stand here; Refused."""
        try:
            jid = self._addresses.account(source.local, source.domain)
        except JidError as error:
            raise Refused(f"it cannot be an address here: {error}") from None
        if not jid.local:
            raise Refused("it has no name")
        if self._domains and jid.domain not in self._domains:
            raise Refused(f"{jid.domain} is not a domain of this server: serve it, or rename it by a map")
        found = Prepared(jid.bare, source.name, source.where)
        if jid.bare != source.name:
            found.notes.append(Note("account-renamed", jid.bare))
        found.password, found.keys = source.password, source.keys
        found.disabled, found.created, found.last = source.disabled, source.created, source.last
        if source.last_status:
            found.notes.append(Note("last-status", source.last_status[:100]))
        self._roster(source.roster, found)
        self._belongings(source, found)
        found.blocks = self._blocks(source.blocks, found)
        return found

    # rosters

    def _roster(self, contacts: Iterable[Contact], found: Prepared) -> None:
        roster: dict[str, str] = {}
        account = found.account
        for contact in contacts:
            packed = self._usual(contact, account)
            if packed is None:
                item = self._item(contact, found)
                if item is None:
                    continue
                packed = item.contact, value_of(item)
            jid, value = packed
            before = roster.get(jid)
            if before is not None:
                found.notes.append(Note("contacts-merged", f"{contact.jid}: into {jid}"))
                value = value_of(merged(item_from(jid, before), item_from(jid, value)))
            roster[jid] = value
        found.roster = self._bounded(roster, found)

    def _usual(self, contact: Contact, account: str) -> tuple[str, str] | None:
        """A contact's address and its item, packed, if it is as nearly all are: no request waits, and nothing
        is to be changed or noted. None: `_item` has to look at it.
        """
        if contact.pending or not contact.listed:
            return None
        jid = self._plain.here(contact.jid)
        if jid is None or jid == account:
            return None
        name, groups = contact.name or "", contact.groups
        if groups:
            if len(groups) > 1:
                groups = sorted(set(groups))
            texts = "".join(groups)
            is_usual = len(groups) <= self._limits.groups and "" not in groups
            if not is_usual or len(texts) > self._short or not texts.isprintable():
                return None
        if len(name) > self._short or not name.isprintable():
            return None
        return jid, plain_value(contact.subscription, contact.ask, contact.approved, name, groups)

    def _item(self, contact: Contact, found: Prepared) -> RosterItem | None:
        jid = self._contact(contact.jid, found)
        if jid is None:
            return None
        state = State.of(contact.subscription, contact.ask, contact.pending)
        if not contact.listed and state is State.NONE and not contact.approved:
            found.notes.append(Note("empty-item", contact.jid))
            return None
        groups = []
        for group in contact.groups:
            text = self._text(group, "group", contact.jid, found)
            if text:
                groups.append(text)
            else:
                found.notes.append(Note("group-without-name", contact.jid))
        return item_of(
            jid,
            state,
            approved=contact.approved,
            name=self._text(contact.name or "", "name", contact.jid, found),
            groups=self._bounded_groups(groups, contact.jid, found),
            request=self._request(contact, jid, found) if state.pending_in else b"",
            listed=contact.listed,
        )

    def _contact(self, address: str, found: Prepared) -> str | None:
        try:
            jid = Jid.parse(self._addresses.renamed(address))
        except JidError as error:
            found.notes.append(Note("contact-refused", f"{address}: {error}"))
            return None
        if jid.bare == found.account:
            found.notes.append(Note("contact-is-oneself", address))
            return None
        if jid.resource:
            found.notes.append(Note("contact-without-resource", address))
        return jid.bare

    def _request(self, contact: Contact, jid: str, found: Prepared) -> bytes:
        if contact.request is None:
            return b""
        tree = Element(
            PRESENCE, {**contact.request.attrib, "type": "subscribe", "from": jid, "to": found.account}
        )
        tree.text = contact.request.text
        tree.extend(contact.request)
        data = serialize(tree)
        if len(data) > self._limits.request_bytes and self._is_over("request-too-long", contact.jid, found):
            return b""
        return data if len(tree) else b""

    def _text(self, text: str, what: str, contact: str, found: Prepared) -> str:
        if len(text) <= self._short and text.isprintable():
            return text
        if not text.isprintable() and _ILLEGAL.search(text):
            found.notes.append(Note(f"{what}-with-control-characters", contact))
            text = _ILLEGAL.sub("\ufffd", text)
        size = self._limits.name_bytes
        is_long = len(text) > self._short and len(text.encode()) > size
        if is_long and self._is_over(f"{what}-too-long", contact, found):
            return text.encode()[:size].decode(errors="ignore")
        return text

    def _bounded_groups(self, groups: list[str], contact: str, found: Prepared) -> list[str]:
        distinct = groups if len(groups) < 2 else list(dict.fromkeys(groups))
        if len(distinct) > self._limits.groups and self._is_over("too-many-groups", contact, found):
            return sorted(distinct)[: self._limits.groups]
        return distinct

    def _bounded(self, roster: dict[str, str], found: Prepared) -> dict[str, str]:
        """A roster in order. Of too many items, those who see each other stay before those who only are seen,
        or see, or ask.
        """
        asked = self._limits.requests
        if len(roster) > asked:
            asked = sum(is_hidden(value) for value in roster.values())
        if len(roster) > self._limits.items or asked > self._limits.requests:
            items = [item_from(contact, roster[contact]) for contact in sorted(roster)]
            kept = {item.contact for item in self._bounded_items(items, found)}
            roster = {contact: value for contact, value in roster.items() if contact in kept}
        return {contact: roster[contact] for contact in sorted(roster)}

    def _bounded_items(self, items: list[RosterItem], found: Prepared) -> list[RosterItem]:
        limits = self._limits
        shown = [item for item in items if not item.hidden]
        if len(shown) > limits.items and self._is_over("too-many-contacts", str(len(shown)), found):
            shown = sorted(shown, key=_rank)[: limits.items]
        asked = [item for item in items if item.hidden]
        if len(asked) > limits.requests and self._is_over("too-many-requests", str(len(asked)), found):
            asked = asked[: limits.requests]
        return [*shown, *asked]

    def _is_over(self, kind: str, detail: str, found: Prepared) -> bool:
        """Something is beyond a limit: whether it is to be cut; Refused if that is what is wanted."""
        if self._limits.over == "refuse":
            raise Refused(f"{kind.replace('-', ' ')}: {detail}")
        found.notes.append(Note(kind, f"{detail}: {'cut' if self._limits.over == 'cut' else 'kept'}"))
        return self._limits.over == "cut"

    # what plugins keep

    def _belongings(self, source: Account, found: Prepared) -> None:
        limits = self._limits
        if source.vcard is not None and len(source.vcard):
            card = serialize(source.vcard)
            if len(card) <= limits.vcard_bytes or not self._is_over("vcard-too-long", str(len(card)), found):
                found.vcard = card
        private: dict[str, bytes] = {}
        for tree in source.private:
            private[tree.tag] = private.get(tree.tag, b"") + serialize(tree, ns.PRIVATE)
        size = sum(map(len, private.values()))
        if (len(private) > limits.private_elements or size > limits.private_bytes) and self._is_over(
            "too-much-private-xml", f"{len(private)} elements, {size} bytes", found
        ):
            private = _cut_private(private, limits)
        found.private = private
        found.offline = self._messages([self._message(message, found) for message in source.offline], found)

    def _message(self, offline: Offline, found: Prepared) -> tuple[bytes, float | None]:
        tree = Element(offline.message.tag, offline.message.attrib)
        tree.text = offline.message.text
        tree.extend(offline.message)
        if sender := tree.get("from"):
            tree.set("from", self._addresses.renamed(sender))
        resource = (tree.get("to") or "").partition("/")[2]
        tree.set("to", f"{found.account}/{resource}" if resource else found.account)
        data = serialize(tree)
        if offline.at is not None:
            stamp = utc_stamp(offline.at)
            data = insert_child(data, "message", delay(found.account.rpartition("@")[2], stamp))
        return data, offline.at

    def _messages(
        self, messages: list[tuple[bytes, float | None]], found: Prepared
    ) -> list[tuple[bytes, float | None]]:
        limits = self._limits
        size = sum(len(data) for data, _ in messages)
        if (len(messages) > limits.messages or size > limits.message_bytes) and self._is_over(
            "too-many-messages", f"{len(messages)}, {size} bytes", found
        ):
            while messages and (len(messages) > limits.messages or size > limits.message_bytes):
                size -= len(messages.pop(0)[0])
        return messages

    def _blocks(self, addresses: Iterable[str], found: Prepared) -> list[str]:
        blocks = set()
        for address in addresses:
            try:
                blocks.add(Jid.parse(self._addresses.renamed(address)).full)
            except JidError as error:
                found.notes.append(Note("block-refused", f"{address}: {error}"))
        return sorted(blocks)


def _rank(item: RosterItem) -> tuple[int, str]:
    state = item.state
    return -(2 * state.is_followed + 2 * state.is_following + state.ask + state.pending_in), item.contact


def _cut_private(private: dict[str, bytes], limits: Limits) -> dict[str, bytes]:
    """As many as fit, the small ones first."""
    kept: dict[str, bytes] = {}
    size = 0
    for name, value in sorted(private.items(), key=lambda entry: (len(entry[1]), entry[0])):
        size += len(value)
        if len(kept) == limits.private_elements or size > limits.private_bytes:
            break
        kept[name] = value
    return kept


# the wire between who prepares and who writes


def parts_of(prepared: Prepared) -> dict[str, Any]:
    """What the account has, by kind, as JSON can hold it: only what is there. The values are the same for the
    same account each time, so they can be compared and hashed.
    """
    parts: dict[str, Any] = {}
    if prepared.roster:
        parts["roster"] = list(prepared.roster.items())
    if prepared.vcard is not None:
        parts["vcard"] = prepared.vcard.decode()
    if prepared.private:
        parts["private"] = {name: value.decode() for name, value in sorted(prepared.private.items())}
    if prepared.offline:
        parts["offline"] = [[data.decode(), at] for data, at in prepared.offline]
    if prepared.blocks:
        parts["blocks"] = prepared.blocks
    if prepared.last is not None:
        parts["last"] = prepared.last
    return parts
