"""ejabberd's text dump of Mnesia (`ejabberdctl dump FILE`): Erlang terms, a record each.

`{tables,[...]}.` comes first and names the fields. Tables come one after the other, so records wait in a
scratch database until all of an account are together. Records of an account begin with `{User,Server}`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.core.roster.subscription import Subscription
from xmppd.migrate.blocks import PrivacyItem, blocks_of_privacy, kinds_of
from xmppd.migrate.erlang import Atom, BadTerm, Term, term_of, terms_in, text_of
from xmppd.migrate.fragments import BadXml, element_of
from xmppd.migrate.keys import from_base64, keys_of
from xmppd.migrate.record import Account, Contact, Losses, Offline, Unreadable
from xmppd.migrate.scratch import Pieces
from xmppd.migrate.source import Options, SourceError, Strays, opened
from xmppd.migrate.vcards import NODES, vcard_of_pep
from xmppd.xml.build import element, escape_attribute, escape_text

HINT: Final = "is it the whole output of `ejabberdctl dump`?"
BANNED: Final = "BANNED_ACCOUNT"
"""What a password begins with that an administrator put in the place of the true one."""

NO_LOGIN: Final = "Registered but didn't login"
"""The status of an account whose last activity is that it was made."""

FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "passwd": ("us", "password"),
    "last_activity": ("us", "timestamp", "status"),
    "roster": ("usj", "us", "jid", "name", "subscription", "ask", "groups", "askmessage", "xs"),
    "vcard": ("us", "vcard"),
    "private_storage": ("usns", "xml"),
    "privacy": ("us", "default", "lists"),
    "offline_msg": ("us", "timestamp", "expire", "from", "to", "packet"),
    "pubsub_item": ("itemid", "nodeidx", "creation", "modification", "payload"),
    "sr_user": ("us", "group_host"),
}
"""Tables of which records are kept, and the fields that they have where the dump does not say. Their places
are what kinds of pieces are called by.
"""

TABLES: Final = tuple(FIELDS)
DERIVED: Final = frozenset(
    """schema roster_version vcard_search pubsub_state pubsub_index pubsub_orphan pubsub_last_item
    pubsub_subscription caps_features session session_counter s2s route local_config mnesia_sequence
    bytestream captcha http_bind iq_response acl access reg_users reg_users_counter temporarily_blocked
    oauth_token oauth_client muc_online_room muc_online_users mod_register_ip ejabberd_commands sip_session
    irc_custom muc_registered_online push_session access_rules bosh proxy65""".split()
)
"""Tables with nothing that belongs to an account and is not elsewhere."""

_BINARY = r'<<(?:"[^"\\\n\0]*+"|[0-9,\s]*+)>>'
_KEY = re.compile(rf"\s*\{{\s*(\w+)\s*,\s*\{{\s*({_BINARY})\s*,\s*({_BINARY})\s*[,}}]", re.ASCII)
"""The table, user and server of a record, without parsing it."""

_ROSTER = re.compile(
    r"\s*\{roster,\s*\{B,\s*B,\s*\{B,\s*B,\s*B\}\},\s*\{(B),\s*(B)\},\s*\{(B),\s*(B),\s*(B)\},\s*(B),\s*([a-z]+),\s*"
    r"([a-z]+),\s*\[((?:B(?:,\s*)?)*+)\],\s*<<>>,\s*\[\]\}\s*".replace("B", _BINARY),
    re.ASCII,
)
"""A contact as most are: fields as we know them, no escapes, no request."""

EMPTY: Final = "<<>>"
SEPARATOR: Final = "\0"
"""Between the parts of such a contact while it waits."""

QUICK: Final = -1
"""The kind of a piece that is such a contact."""

_SEEN = re.compile(r'\{\w+,\s*\{\s*<<([^<>]{1,300})>>\s*,\s*<<"([^"<>\\]{1,300})">>', re.ASCII)
_ANY_BINARY = re.compile(_BINARY, re.ASCII)
_XML_NAME = re.compile(r"""[^\s<>&'"/=!?]+""")

PARTS: Final = frozenset((ns.VCARD4, ns.AVATAR_DATA, ns.AVATAR_METADATA))
"""Namespaces of payloads that make a vCard."""

PEP_TAGS: Final = (f"{{{ns.VCARD4}}}vcard", f"{{{ns.AVATAR_DATA}}}data", f"{{{ns.AVATAR_METADATA}}}metadata")

SUBSCRIPTIONS: Final[Mapping[str, Subscription]] = {
    "none": "none",
    "to": "to",
    "from": "from",
    "both": "both",
}
ASKS: Final[Mapping[str, tuple[bool, bool]]] = {
    "none": (False, False),
    "out": (True, False),
    "in": (False, True),
    "both": (True, True),
    "subscribe": (True, False),
    "unsubscribe": (False, False),
}
"""Their `ask` -> our `ask` and `pending`."""


@dataclass(slots=True)
class _Draft:
    """An account while its records are read. `pep` are payloads by their Clark names."""

    account: Account
    losses: Losses
    pep: dict[str, Element] = field(default_factory=dict)
    is_account: bool = False

    def lose(self, kind: str, detail: str) -> None:
        self.losses.add(kind, self.account.name, detail)


Row = Mapping[str, Term]


def _passwd(draft: _Draft, row: Row) -> None:
    account, password = draft.account, row["password"]
    draft.is_account = True
    if isinstance(password, dict):
        return _keys_of_map(draft, password)
    if isinstance(password, tuple):
        if len(password) not in (5, 6) or password[0] != "scram":
            raise BadTerm("keys of an unknown form")
        stored, server, salt = (from_base64(text_of(part)) for part in password[1:4])
        found = keys_of(stored, server, salt, password[-1])
        if found is None:
            raise BadTerm("keys that fit no hash")
        account.keys[found[0]] = found[1]
        return None
    text = text_of(password)
    if text.startswith(BANNED):
        account.disabled = True
    elif text:
        account.password = text
    return None


def _keys_of_map(draft: _Draft, password: dict[Term, Term]) -> None:
    """Keys as MongooseIM has them: `#{iteration_count => N, sha256 => #{salt => ..., ...}}`."""
    for part in password.values():
        if isinstance(part, dict):
            stored, server, salt = (
                from_base64(text_of(part.get(name, ""))) for name in ("stored_key", "server_key", "salt")
            )
            found = keys_of(stored, server, salt, password.get("iteration_count"))
            if found is None:
                raise BadTerm("keys that fit no hash")
            draft.account.keys[found[0]] = found[1]


def _last_activity(draft: _Draft, row: Row) -> None:
    seconds, status = _number(row["timestamp"]), text_of(row["status"])
    if status == NO_LOGIN:
        draft.account.created = seconds
    else:
        draft.account.last, draft.account.last_status = seconds, status


def _roster(draft: _Draft, row: Row) -> None:
    draft.is_account = True
    subscription, ask = row["subscription"], row["ask"]
    if subscription == "remove":
        return
    if subscription not in SUBSCRIPTIONS or ask not in ASKS:
        raise BadTerm(f"no such state: {str(subscription)[:20]}, {str(ask)[:20]}")
    asks, pending = ASKS[ask]
    groups = row["groups"]
    if not isinstance(groups, list):
        raise BadTerm("groups that are no list")
    jid, name, status = _jid(row["jid"]), text_of(row["name"]), text_of(row.get("askmessage", ""))
    contact = _contact(
        jid, SUBSCRIPTIONS[subscription], asks, pending, name, [text_of(group) for group in groups]
    )
    contact.approved = row.get("approved") == "true"
    extra = row.get("xs")
    if pending and (status or extra):
        contact.request = _request(jid, status, extra if isinstance(extra, list) else [])
    draft.account.roster.append(contact)


def _request(jid: str, status: str, extra: Sequence[Term]) -> Element:
    text = element(f"{{{ns.CLIENT}}}status", None, status) if status else None
    children = [_element(child) for child in extra]
    return element(f"{{{ns.CLIENT}}}presence", {"type": "subscribe", "from": jid}, text, *children)


def _contact(
    jid: str, subscription: Subscription, ask: bool, pending: bool, name: str, groups: list[str]
) -> Contact:
    is_listed = not pending or subscription != "none" or ask or bool(name or groups)
    return Contact(jid, subscription, ask, pending, False, name or None, groups, None, is_listed)


def _vcard(draft: _Draft, row: Row) -> None:
    draft.account.vcard = _element(row["vcard"])


def _private_storage(draft: _Draft, row: Row) -> None:
    draft.account.private.append(_element(row["xml"]))


def _privacy(draft: _Draft, row: Row) -> None:
    lists: dict[str, list[PrivacyItem]] = {}
    for entry in row["lists"]:
        name, items = entry
        lists[text_of(name)] = [_privacy_item(item) for item in items]
    default = row["default"]
    name = None if default == "none" and isinstance(default, Atom) else text_of(default)
    draft.account.blocks += blocks_of_privacy(lists, name, draft.account.name, draft.losses)


def _privacy_item(item: Term) -> PrivacyItem:
    _, kind, value, action, order, is_whole, *flags = item
    kinds = frozenset[str]() if is_whole == "true" else kinds_of(*(flag == "true" for flag in flags))
    if kind == "jid":
        return PrivacyItem(str(action), int(order), "jid", _jid(value), kinds)
    if kind == "none":
        return PrivacyItem(str(action), int(order), "", "", kinds)
    text = str(value) if isinstance(value, Atom) else text_of(value)
    return PrivacyItem(str(action), int(order), str(kind), text, kinds)


def _offline_msg(draft: _Draft, row: Row) -> None:
    message = _element(row["packet"])
    for key in ("from", "to"):
        sides = row.get(key)
        if message.get(key) is None and isinstance(sides, tuple) and len(sides) == 7:
            message.set(key, _jid(sides[1:4]))
    draft.account.offline.append(Offline(message, _moment(row["timestamp"])))


def _moment(stamp: Term) -> float:
    """Seconds of `{Mega,Sec,Micro}`."""
    mega, seconds, micro = stamp
    return _number(mega) * 1_000_000 + _number(seconds) + _number(micro) / 1_000_000


def _pubsub_item(draft: _Draft, row: Row) -> None:
    """Only what may be part of a vCard is kept; the newest item of a node comes last."""
    for payload in row["payload"]:
        tree = _element(payload)
        draft.pep[tree.tag] = tree


def _sr_user(draft: _Draft, row: Row) -> None:
    draft.lose("shared-group", text_of(row["group_host"][0]))


TAKE: Final[Mapping[str, Callable[[_Draft, Row], None]]] = {
    "passwd": _passwd,
    "last_activity": _last_activity,
    "roster": _roster,
    "vcard": _vcard,
    "private_storage": _private_storage,
    "privacy": _privacy,
    "offline_msg": _offline_msg,
    "pubsub_item": _pubsub_item,
    "sr_user": _sr_user,
}


def _number(term: Term) -> int:
    if type(term) is not int or abs(term) >= 1 << 63:
        raise BadTerm("no number where one is meant")
    return term


def _jid(term: Term) -> str:
    """The address of `{User,Server,Resource}`."""
    if not isinstance(term, tuple) or len(term) != 3:
        raise BadTerm("no address where one is meant")
    local, domain, resource = map(text_of, term)
    return (f"{local}@" if local else "") + domain + (f"/{resource}" if resource else "")


def _element(term: Term) -> Element:
    """The element that `{xmlel,Name,Attributes,Children}` is."""
    parts: list[str] = []
    _write(term, parts)
    return element_of("".join(parts))


def _write(term: Term, parts: list[str]) -> None:
    if not isinstance(term, tuple) or len(term) != 4 or term[0] not in ("xmlel", "xmlelement"):
        raise BadTerm("no XML where it is meant")
    name = _xml_name(term[1])
    parts.append(f"<{name}")
    for key, value in term[2]:
        parts.append(f" {_xml_name(key)}='{escape_attribute(text_of(value))}'")
    parts.append(">")
    for child in term[3]:
        if isinstance(child, tuple) and len(child) == 2 and child[0] == "xmlcdata":
            parts.append(escape_text(text_of(child[1])))
        else:
            _write(child, parts)
    parts.append(f"</{name}>")


def _xml_name(term: Term) -> str:
    name = text_of(term)
    if not _XML_NAME.fullmatch(name):
        raise BadTerm("a name that XML does not have")
    return name


def _quick_text(token: str) -> str:
    """The text of a binary without escapes."""
    body = token[3:-3]
    return body if body.isascii() and token[2] == '"' else text_of(term_of(token))


def _take_quickly(draft: _Draft, parts: str) -> None:
    """A contact from the parts of its record. BadTerm."""
    local, domain, resource, name, subscription, ask, groups = parts.split(SEPARATOR)
    state = ASKS[ask]
    jid = _quick_text(domain)
    if len(local) > len(EMPTY):
        jid = f"{_quick_text(local)}@{jid}"
    if len(resource) > len(EMPTY):
        jid = f"{jid}/{_quick_text(resource)}"
    named = _quick_text(name) if len(name) > len(EMPTY) else ""
    labels = [_quick_text(group) for group in _ANY_BINARY.findall(groups)] if groups else []
    draft.account.roster.append(_contact(jid, SUBSCRIPTIONS[subscription], *state, named, labels))
    draft.is_account = True


def _seen_name(text: str) -> str:
    """The name of an account as much as is to be seen in a broken record, and never what follows it."""
    found = _SEEN.match(text)
    data = "@".join((found[1].strip('"'), found[2])) if found else ""
    return data.encode("latin-1").decode("utf-8", "replace")


def _namespace(payload: Term) -> str:
    """The `xmlns` of an element."""
    return next((text_of(value) for key, value in payload[2] if key == "xmlns"), "")


class Mnesia:
    """Accounts of one dump, sorted by name."""

    def __init__(self, path: Path, options: Options) -> None:
        self._path, self._options = path, options
        self._fields: dict[str, Sequence[str]] = dict(FIELDS)
        self._has_known_roster = False
        self._strays = Strays(path)
        self._pieces = Pieces(options.scratch)
        try:
            self._load()
            self._total = self._pieces.count()
        except BaseException:
            self._pieces.close()
            raise

    @property
    def total(self) -> int:
        return self._total

    def close(self) -> None:
        self._pieces.close()

    def _load(self) -> None:
        with opened(self._path) as file:
            terms = terms_in(file)
            line, byte, data, _ = next(terms, (1, 0, b"", False))
            self._take_tables(data or b"", line, byte)
            for line, byte, data, is_whole in terms:
                if not is_whole:
                    raise SourceError(
                        "the file ends in the middle of a record",
                        file=self._path,
                        line=line,
                        byte=byte,
                        hint=HINT,
                    )
                self._sort_in(line, data)

    def _take_tables(self, data: bytes, line: int, byte: int) -> None:
        """The first term, which names the fields of each table."""
        try:
            word, tables = term_of(data.decode("latin-1"))
            if word != "tables":
                raise BadTerm("the first term is not {tables,[...]}")
            for name, settings in tables:
                if name in FIELDS:
                    self._fields[name] = [str(each) for each in dict(settings)["attributes"]]
            self._has_known_roster = tuple(self._fields["roster"]) == FIELDS["roster"]
        except (ValueError, TypeError, KeyError) as error:
            why = str(error) if isinstance(error, BadTerm) else "the first term is not {tables,[...]}"
            raise SourceError(why, file=self._path, line=line, byte=byte, hint=HINT) from None

    def _sort_in(self, line: int, data: bytes | None) -> None:
        """Keep one record with its account, unparsed; or say what is lost."""
        where = f"{self._path.name}:{line}"
        text = data.decode("latin-1") if data is not None else ""
        try:
            if data is None:
                raise BadTerm("a record that is too long")
            if self._has_known_roster and (quick := _ROSTER.fullmatch(text)) is not None:
                local, domain, *parts = quick.groups()
                if parts[4] in SUBSCRIPTIONS and parts[5] in ASKS:
                    account = f"{_quick_text(local)}@{_quick_text(domain)}"
                    self._pieces.add(account, QUICK, f"{line}{SEPARATOR}{SEPARATOR.join(parts)}")
                    return
            found = _KEY.match(text)
            if found is not None and found[1] != "pubsub_item":
                table, local, domain = found[1], _quick_text(found[2]), _quick_text(found[3])
            else:
                table, local, domain = self._key_of(term_of(text))
        except BadTerm as error:
            self._broken(text, str(error), where)
            return
        if table in FIELDS:
            self._pieces.add(f"{local}@{domain}", TABLES.index(table), f"{line}{SEPARATOR}{text}")
        elif table not in DERIVED:
            self._options.losses.add(table.replace("_", "-"), "", where)

    def _broken(self, text: str, why: str, where: str) -> None:
        if text.startswith("{passwd,"):
            self._strays.add(_seen_name(text), why, where)
        else:
            self._options.losses.add("unreadable-record", "", f"{where}: {why}")

    def _key_of(self, record: Term) -> tuple[str, str, str]:
        """Table, user and server of a record that has to be parsed for it. BadTerm."""
        if not isinstance(record, tuple) or not record or not isinstance(record[0], Atom):
            raise BadTerm("no record")
        table = str(record[0])
        try:
            if table == "pubsub_node":
                return self._take_node(record)
            if table == "pubsub_item":
                row = self._row(record)
                tags = {_namespace(payload) for payload in row["payload"]}
                owner = row["creation"][1] if tags & PARTS else ("", "", "")
                return (table if tags & PARTS else "pubsub_state", text_of(owner[0]), text_of(owner[1]))
            if table not in FIELDS:
                return table, "", ""
            return table, text_of(record[1][0]), text_of(record[1][1])
        except (TypeError, IndexError, KeyError):
            raise BadTerm(f"a record of {table[:30]} that is not one") from None

    def _take_node(self, record: Term) -> tuple[str, str, str]:
        """A node of PEP is lost unless it makes a vCard; one of a service belongs to nobody."""
        host, node = record[1]
        if isinstance(host, tuple) and text_of(node) not in NODES:
            self._options.losses.add("pep-node", _jid(host), text_of(node))
        return ("pubsub_state" if isinstance(host, tuple) else "pubsub_node"), "", ""

    def _row(self, record: Term) -> dict[str, Any]:
        names = self._fields[record[0]]
        if len(record) != len(names) + 1:
            raise BadTerm(f"a record of {record[0]} with {len(record) - 1} fields instead of {len(names)}")
        return dict(zip(names, record[1:], strict=True))

    def __iter__(self) -> Iterator[Account | Unreadable]:
        yield from self._strays.items
        for name, pieces in self._pieces:
            if pieces is None:
                yield Unreadable(name, "it has more than fits into memory", self._path.name)
            elif (item := self._account(name, pieces)) is not None:
                yield item

    def _account(self, name: str, pieces: list[tuple[int, str]]) -> Account | None:
        local, _, domain = name.rpartition("@")
        draft = _Draft(Account(local, domain), self._options.losses)
        for kind, data in pieces:
            number, _, text = data.partition(SEPARATOR)
            table = "roster" if kind == QUICK else TABLES[kind]
            if table == "passwd" or not draft.account.where:
                draft.account.where = f"{self._path.name}:{number}"
            try:
                if kind == QUICK:
                    _take_quickly(draft, text)
                else:
                    TAKE[table](draft, self._row(term_of(text)))
            except (BadTerm, BadXml) as error:
                draft.lose("unreadable-record", f"{self._path.name}:{number}: {table}: {error}")
            except (TypeError, ValueError, KeyError, IndexError, OverflowError):
                draft.lose(
                    "unreadable-record", f"{self._path.name}:{number}: {table}: fields of unknown form"
                )
        return self._finished(draft)

    def _finished(self, draft: _Draft) -> Account | None:
        account = draft.account
        if not draft.is_account:
            draft.lose("without-account", account.where)
            return None
        if draft.pep:
            parts = (draft.pep.get(tag) for tag in PEP_TAGS)
            if account.vcard is None:
                account.vcard = vcard_of_pep(*parts)
            else:
                draft.lose("pep-vcard", "there is a vcard-temp, too")
        account.offline.sort(key=lambda offline: offline.at or 0.0)
        return account


class _MnesiaFormat:
    name = "ejabberd-mnesia"

    def recognises(self, path: Path, head: bytes) -> bool:
        """A file that begins with the names of tables."""
        return re.match(rb"\s*\{\s*tables\s*,", head) is not None

    def open(self, path: Path, options: Options) -> Mnesia:
        return Mnesia(path, options)


FORMAT: Final = _MnesiaFormat()
