"""What documents of XEP-0227 say of one account, gathered while they are read."""

from __future__ import annotations

import re
from typing import Final
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.core.roster.subscription import Subscription
from xmppd.migrate.blocks import blocked_of, blocks_of_privacy, privacy_of
from xmppd.migrate.fragments import renamed
from xmppd.migrate.keys import from_base64, keys_of
from xmppd.migrate.record import Account, Contact, Losses, Offline, Unreadable
from xmppd.migrate.source import LONGEST_VALUE
from xmppd.migrate.stamps import moment
from xmppd.migrate.vcards import NODES, vcard_of_nodes

LARGEST_ACCOUNT: Final = 16 * LONGEST_VALUE
"""The most that one account may hold, in letters about: more is an account that cannot be read."""

_SUBSCRIPTIONS: Final[dict[str, Subscription]] = {"none": "none", "to": "to", "from": "from", "both": "both"}
_SUBSTATUS: Final[dict[str, Subscription]] = {"0": "none", "1": "to", "2": "from", "3": "both"}
_OLD_KEYS: Final = re.compile(r"scram:(?:(sha256|sha512),)?([^,]*),([^,]*),([^,]*),([^,]*)")
_STANZA_SPACES: Final = (ns.PIE, ns.OLD_PIE, ns.SERVER, "")
_ADDED: Final = "offline storage"
_EMPTY_REQUEST: Final = frozenset(("from", "to", "type"))


class Draft:
    """One account that is being read. `why` says what makes it unreadable, "" while nothing does."""

    def __init__(self, local: str, domain: str, where: str, losses: Losses) -> None:
        self.account = Account(local, domain, where)
        self.why = ""
        self.losses = losses
        self._requests: list[Element] = []
        self._nodes: dict[str, list[tuple[str, Element]]] = {}
        self._other: dict[str, int] = {}
        self._weight = 0
        self._groups: set[str] = set()
        self._may_be_unlisted = False

    def spoil(self, why: str) -> None:
        """It cannot be read; the first reason counts, and nothing more is kept of it."""
        if not self.why:
            self.why = why
            self._requests.clear()
            self._nodes.clear()
            self.account = Account(self.account.local, self.account.domain, self.account.where)

    def weigh(self, weight: int) -> None:
        """Count what was kept."""
        self._weight += weight
        if self._weight > LARGEST_ACCOUNT:
            self.spoil(f"it holds more than {LARGEST_ACCOUNT >> 20} MiB")

    def lose(self, kind: str, detail: str = "", count: int = 1) -> None:
        """Something that this server has no place for."""
        self.losses.add(kind, self.account.name, detail, count)

    def password(self, text: str, *, is_doubtful: bool) -> None:
        """The plain password, or old ejabberd's spelling of keys (`scram:…`). A doubtful one that equals the
        user's name stands for one that could not be read (Openfire).
        """
        match = _OLD_KEYS.fullmatch(text)
        if match is not None and self.keys(match[2], match[3], match[4], match[5]):
            return
        if is_doubtful and text == self.account.local:
            self.lose("password-is-name", "the name stands for a password that could not be exported")
        elif text:
            self.account.password = text

    def credentials(self, tree: Element) -> None:
        """`<scram-credentials/>`; the length of the keys tells their hash, for the label may be wrong."""
        found = {child.tag.rpartition("}")[2]: child.text or "" for child in tree}
        parts = [found.get(name, "") for name in ("stored-key", "server-key", "salt", "iter-count")]
        if not self.keys(*parts):
            self.lose("keys", tree.get("mechanism", "no mechanism"))

    def keys(self, stored: str, server: str, salt: str, iterations: str) -> bool:
        """Keys in base64; whether they can be used. The first ones of a hash count."""
        parts = [from_base64("".join(text.split())) for text in (stored, server, salt)]
        found = keys_of(parts[0], parts[1], parts[2], iterations.strip())
        if found is not None:
            self.account.keys.setdefault(*found)
        return found is not None

    def contact(self, attrs: dict[str, str]) -> Contact | None:
        """An `<item/>` of the roster (RFC 6121 2.1.2); None where it is none."""
        jid, subscription = attrs.get("jid", ""), attrs.get("subscription", "none")
        known = _SUBSCRIPTIONS.get(subscription)
        if subscription == "remove":
            return None
        if not jid or known is None:
            self.lose("contact", f"{jid}: subscription {subscription}" if jid else "no address")
            if not jid:
                return None
        contact = Contact(
            jid,
            known or "none",
            attrs.get("ask") == "subscribe",
            approved=attrs.get("approved") in ("true", "1"),
            name=attrs.get("name"),
        )
        self.add(contact)
        return contact

    def openfire_contact(self, attrs: dict[str, str]) -> Contact | None:
        """An `<Item/>` of Openfire's own XML; None where it is none, or was removed."""
        jid, status = attrs.get("jid", ""), attrs.get("substatus", "0")
        if not jid or status == "-1":
            return None
        if status not in _SUBSTATUS:
            self.lose("contact", f"{jid}: substatus {status}")
        contact = Contact(
            jid,
            _SUBSTATUS.get(status, "none"),
            attrs.get("askstatus") == "0",
            attrs.get("recvstatus") == "1",
            name=attrs.get("name"),
        )
        self._may_be_unlisted = True
        self.add(contact)
        return contact

    def add(self, contact: Contact) -> None:
        """A contact of the roster."""
        if not self.why:
            self._groups.clear()
            self.account.roster.append(contact)
            self.weigh(200 + len(contact.jid) + len(contact.name or ""))

    def group(self, contact: Contact, name: str) -> None:
        """A group of the contact that was added last: nothing where it has no name."""
        if name and name not in self._groups and not self.why:
            self._groups.add(name)
            contact.groups.append(name)
            self.weigh(50 + len(name))

    def presence(self, tree: Element) -> None:
        """A subscription request, in whatever namespace."""
        if tree.get("type") != "subscribe" or not tree.get("from"):
            self.lose("presence", tree.get("type", "available"))
        else:
            self._requests.append(_stanza(tree))

    def message(self, tree: Element) -> None:
        """A message that waits. The delay that the server added is taken off."""
        message = _stanza(tree)
        self.account.offline.append(Offline(message, self._added_delay(message)))

    def _added_delay(self, message: Element) -> float | None:
        at: float | None = None
        delays = [child for child in message if child.tag == f"{{{ns.DELAY}}}delay" and self._is_own(child)]
        old = [child for child in message if child.tag == f"{{{ns.LEGACY_DELAY}}}x" and self._is_own(child)]
        for child in (*delays[-1:], *old):
            found = moment(child.get("stamp", ""))
            if found is None:
                self.lose("stamp", child.get("stamp", "none"))
            at = found if at is None else at
            _remove(message, child)
        return at

    def _is_own(self, delay: Element) -> bool:
        sender = delay.get("from", "")
        return sender == self.account.domain or (
            not sender and (delay.text or "").strip().lower() in (_ADDED, "storage")
        )

    def vcard(self, tree: Element) -> None:
        """A `<vCard/>`; the first one counts."""
        if self.account.vcard is None:
            self.account.vcard = tree
        else:
            self.lose("unknown-element", "a second vCard")

    def private(self, tree: Element) -> None:
        """One element of private XML storage."""
        self.account.private.append(tree)

    def privacy(self, tree: Element) -> None:
        """All privacy lists."""
        self._block(blocks_of_privacy(*privacy_of(tree), self.account.name, self.losses))

    def blocklist(self, tree: Element) -> None:
        """A block list (XEP-0191), which servers add."""
        self._block(blocked_of(tree))

    def _block(self, addresses: list[str]) -> None:
        known = set(self.account.blocks)
        self.account.blocks += [address for address in addresses if address not in known]

    def node(self, name: str, items: int = 0) -> None:
        """A node of PEP, and items of it that are not read."""
        self._other[name] = self._other.get(name, 0) + items

    def item(self, node: str, tree: Element) -> None:
        """An `<item/>` of one of the nodes that make a vCard."""
        if len(tree):
            self._nodes.setdefault(node, []).append((tree.get("id", ""), tree[0]))

    def finish(self) -> Account | Unreadable:
        """The account, when all of it was read."""
        account = self.account
        if not self.why and not account.local:
            self.why = "a user without a name"
        if self.why:
            return Unreadable(account.name, self.why, account.where)
        has_card = account.vcard is not None
        if not has_card:
            account.vcard = vcard_of_nodes(self._nodes)
        for name, items in self._other.items():
            if has_card or name not in NODES:
                self.lose("pep-node", f"{name}: {items + len(self._nodes.get(name, ()))} items")
        for contact in account.roster if self._may_be_unlisted else ():
            is_less = contact.subscription == "none" and not contact.ask and contact.name is None
            contact.listed = not (contact.pending and is_less and not contact.groups)
        self._ask()
        return account

    def _ask(self) -> None:
        """Put the requests to the contacts that they are from."""
        if not self._requests:
            return
        roster = self.account.roster
        known = {contact.jid: contact for contact in reversed(roster)}
        for tree in self._requests:
            sender = tree.get("from", "")
            jid = sender if sender in known else sender.partition("/")[0] or sender
            contact = known.get(jid)
            if contact is None:
                contact = known[jid] = Contact(jid, listed=False)
                roster.append(contact)
            contact.pending = True
            says_more = len(tree) or (tree.text or "").strip() or tree.attrib.keys() - _EMPTY_REQUEST
            if contact.request is None and says_more:
                contact.request = tree


def _stanza(tree: Element) -> Element:
    """The stanza in `jabber:client`, whatever namespace it was written in."""
    space = tree.tag[1:].partition("}")[0] if tree.tag[0] == "{" else ""
    return renamed(tree, space, ns.CLIENT) if space in _STANZA_SPACES else tree


def _remove(tree: Element, child: Element) -> None:
    """Take a child off; the text behind it stays."""
    index = list(tree).index(child)
    if child.tail:
        if index:
            tree[index - 1].tail = (tree[index - 1].tail or "") + child.tail
        else:
            tree.text = (tree.text or "") + child.tail
    del tree[index]
