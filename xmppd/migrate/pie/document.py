"""One document of XEP-0227, or of Openfire's own XML, read as it comes: bytes in, accounts out.

A document is never in memory: a contact becomes a `Contact` at once, and a tree is made only of what is kept
as one (a stanza, a vCard, one element of private storage). No DTD is read, so there are no entities.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import isfinite
from typing import Final, NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers.expat import ExpatError, ParserCreate, errors

from xmppd import ns
from xmppd.migrate.fragments import DEEPEST
from xmppd.migrate.pie.account import Draft
from xmppd.migrate.pie.mended import Mended
from xmppd.migrate.record import Account, Contact, Unreadable
from xmppd.migrate.source import LONGEST_VALUE, Options, SourceError
from xmppd.migrate.vcards import NODES
from xmppd.xml.stanza import SEPARATOR, clark

Attrs = dict[str, str]

# What the parser is in: the children of which element come next.
START, DATA, HOST, USER, ROSTER, ITEM, GROUP, OFFLINE, PRIVATE, PUBSUB, ITEMS, OWNER, ARCHIVE = range(13)
OPENFIRE, PERSON, TEXT, PEOPLE = range(13, 17)
SKIP, TREE = -1, -2
"""What becomes of an element that is no state: it is passed over, or it becomes a tree."""

PIECE: Final = 65_536
_PIE: Final = frozenset((ns.PIE, ns.OLD_PIE))
_INCLUDE: Final = f"{ns.XINCLUDE}{SEPARATOR}include"
_ITEM: Final = f"{ns.ROSTER}{SEPARATOR}item"
_GROUPS: Final = frozenset((f"{ns.ROSTER}{SEPARATOR}group", "Group", "group"))
_DISABLED: Final = f"{ns.PROSODY_PIE}{SEPARATOR}disabled"
_CREATED: Final = f"{ns.PROSODY_PIE}{SEPARATOR}created"
_UTF8: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?!<\?xml[^>]{0,1000}encoding\s{0,9}=\s{0,9}['\"](?!utf-?8['\"]))<", re.IGNORECASE
)
_ROOT: Final = re.compile(rb"<(?:[\w.-]+:)?server-data\b([^>]*)>")
_MOST_NAMES: Final = 10_000

LONGEST_HREF: Final = 1000
"""Letters of the name of a file that is included: no file has a longer one."""


class Include(NamedTuple):
    """An `<xi:include/>` that stands where `state` says, in the host `domain`."""

    href: str
    state: int
    domain: str
    line: int


class Result(NamedTuple):
    """A message of an archive, as its `<result/>`."""

    account: str
    tree: Element


class Document:
    """A document that is being read. `ready` is what was found since it was emptied last.

    `state` is what the root stands in: START for a document of its own, DATA, HOST and USER for one that is
    included there, with what is known from outside (`domain`, `draft`). `include` reads what is included
    within a user, into its draft.
    """

    def __init__(
        self,
        file: str,
        options: Options,
        *,
        state: int = START,
        domain: str = "",
        draft: Draft | None = None,
        include: Callable[[Include, Draft], None] | None = None,
    ) -> None:
        self.ready: list[Account | Unreadable | Include | Result] = []
        self.last = ""
        self._file = file
        self._options = options
        self._include = include
        self._domain = domain
        self._draft = draft if draft is not None else Draft("", domain, file, options.losses)
        self._is_within = state == USER
        self._state = state
        self._stack: list[int] = []
        self._skipped = 0
        self._builder: TreeBuilder | None = None
        self._depth = 0
        self._weight = 0
        self._taker: Callable[[Element], None] = _forget
        self._contact: Contact | None = None
        self._text: list[str] = []
        self._field = ""
        self._names: dict[str, str] = {}
        self._is_doubtful = False
        self._named = self._unnamed = 0
        self._mended: Mended | None = None
        self._fed = 0
        self._openers: dict[int, Callable[[str, Attrs], int]] = {
            START: self._in_start,
            DATA: self._in_data,
            HOST: self._in_host,
            USER: self._in_user,
            ROSTER: self._in_roster,
            ITEM: self._in_item,
            GROUP: self._in_nothing,
            OFFLINE: self._in_offline,
            PRIVATE: self._in_private,
            PUBSUB: self._in_pubsub,
            ITEMS: self._in_items,
            OWNER: self._in_owner,
            ARCHIVE: self._in_archive,
            OPENFIRE: self._in_openfire,
            PERSON: self._in_person,
            TEXT: self._in_nothing,
            PEOPLE: self._in_people,
        }
        parser = self._parser = ParserCreate(None, SEPARATOR)
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._data
        parser.StartDoctypeDeclHandler = self._doctype

    def feed(self, data: bytes) -> None:
        """The next bytes; SourceError."""
        if not self._fed:
            self._begin(data)
        self._parse(data, False)

    def close(self) -> None:
        """There are no more bytes; SourceError where some are missing."""
        self._parse(b"", True)
        mended = self._mended
        if mended is not None and mended.count:
            detail = f"{self._file}: {mended.count} bytes, the first one is byte {mended.first}"
            self._options.losses.add("not-utf-8", "", detail)
        if self._unnamed and self._named:  # nobody else writes groups without a name
            detail = f"{self._file}: Openfire's plugin runs all groups of a contact together into one"
            self._options.losses.add("groups-joined", "", detail, self._named)

    def _begin(self, data: bytes) -> None:
        """What the first bytes tell and no parser does: that it should be UTF-8, and whether the root is
        written as by dom4j, with double quotes, which Openfire uses.
        """
        self._mended = Mended() if _UTF8.match(data) else None
        root = _ROOT.search(data) if self._state == START else None
        self._is_doubtful = root is not None and b'"' in root[1] and not self._options.names_as_passwords

    def _parse(self, data: bytes, is_last: bool) -> None:
        if self._mended is not None:
            data = self._mended.feed(data, is_last)
        self._fed += len(data)
        try:
            self._parser.Parse(data, is_last)
        except ExpatError as error:
            self._malformed(error)
        if self._fed - self._parser.CurrentByteIndex > LONGEST_VALUE:
            raise self._error(f"a tag of more than {LONGEST_VALUE >> 20} MiB")

    def _malformed(self, error: ExpatError) -> None:
        reason = errors.messages.get(error.code, "unknown")
        is_cut = reason in (errors.XML_ERROR_NO_ELEMENTS, errors.XML_ERROR_UNCLOSED_TOKEN)
        within = f" within the account {self._draft.account.name}" if self._is_in_user() else ""
        last = f"the last whole account is {self.last}" if self.last else "no account before it is whole"
        why = f"the file ends early{within}" if is_cut else f"not well-formed{within}: {reason}"
        raise self._error(f"{why}; {last}") from None

    def _error(self, why: str, hint: str = "") -> SourceError:
        shift = self._mended.count if self._mended is not None else 0
        byte = max(0, self._parser.CurrentByteIndex - shift)
        return SourceError(why, file=self._file, line=self._parser.CurrentLineNumber, byte=byte, hint=hint)

    def _is_in_user(self) -> bool:
        return self._state == USER or USER in self._stack or self._state == PERSON or PERSON in self._stack

    def _place(self) -> str:
        return f"{self._file}:{self._parser.CurrentLineNumber}"

    # Events of the parser

    def _start(self, name: str, attrs: Attrs) -> None:
        if self._builder is not None:
            self._grow(name, attrs)
            return
        if self._skipped:
            self._skipped += 1
            return
        state = self._openers[self._state](name, attrs)
        if state == SKIP:
            self._skipped = 1
        elif state == TREE:
            self._builder = TreeBuilder()
            self._depth = self._weight = 0
            self._grow(name, attrs)
        else:
            self._stack.append(self._state)
            self._state = state

    def _grow(self, name: str, attrs: Attrs) -> None:
        builder = self._builder
        assert builder is not None
        self._depth += 1
        self._weight += 100 + sum(map(len, attrs)) + sum(map(len, attrs.values()))
        if self._depth > DEEPEST or self._weight > LONGEST_VALUE:
            self._burst(self._depth)
            return
        if any(SEPARATOR in key for key in attrs):
            attrs = {clark(key): value for key, value in attrs.items()}
        builder.start(self._clark(name), attrs)

    def _clark(self, name: str) -> str:
        found = self._names.get(name)
        if found is None:
            if len(self._names) >= _MOST_NAMES:
                self._names.clear()
            found = self._names[name] = clark(name)
        return found

    def _burst(self, depth: int) -> None:
        """A tree is too large to be taken: its account cannot be read, and the rest of it is passed over."""
        deep = f"more than {DEEPEST} levels of elements"
        why = deep if depth > DEEPEST else f"an element of more than {LONGEST_VALUE >> 20} MiB"
        self._draft.spoil(f"{why} ({self._place()})")
        self._builder = None
        self._skipped = depth

    def _data(self, text: str) -> None:
        builder = self._builder
        if builder is not None:
            self._weight += len(text)
            if self._weight > LONGEST_VALUE:
                self._burst(self._depth)
            else:
                builder.data(text)
        elif not self._skipped and (self._state == GROUP or self._state == TEXT):
            self._weight += len(text)
            if self._weight <= LONGEST_VALUE:
                self._text.append(text)
            else:
                self._draft.spoil(f"a text of more than {LONGEST_VALUE >> 20} MiB ({self._place()})")

    def _end(self, name: str) -> None:
        builder = self._builder
        if builder is not None:
            self._depth -= 1
            builder.end(self._clark(name))
            if not self._depth:
                self._builder = None
                tree: Element = builder.close()
                if not self._draft.why:
                    self._taker(tree)
                    if self._state != ARCHIVE:
                        self._draft.weigh(self._weight)
        elif self._skipped:
            self._skipped -= 1
        else:
            state = self._state
            self._state = self._stack.pop()
            if state == GROUP:
                text = "".join(self._text)
                self._unnamed += not text
                self._named += bool(text)
                if self._contact is not None:
                    self._draft.group(self._contact, text)
            elif state == TEXT:
                self._person("".join(self._text).strip())
            elif state in (USER, PERSON) and not self._is_within:
                self._finish()

    def _doctype(self, *_: object) -> None:
        raise self._error(
            "a document type declaration", "XEP-0227 has none; take it out if you trust the file"
        )

    def _finish(self) -> None:
        found = self._draft.finish()
        self.ready.append(found)
        if isinstance(found, Account):
            self.last = found.name
        self._draft = Draft("", self._domain, "", self._options.losses)

    # XEP-0227

    def _in_start(self, name: str, attrs: Attrs) -> int:
        local = name.rpartition(SEPARATOR)[2]
        if local == "server-data" and _space(name) in _PIE:
            return DATA
        if local == "host" and _space(name) in _PIE:
            return self._in_data(name, attrs)
        if local == "Openfire":
            return self._openfire()
        if local == "user" and _space(name) in _PIE and self._options.domain:
            self._domain = self._options.domain
            return self._in_host(name, attrs)
        if local == "user":
            raise self._error("a file with one user and without its host", "say its domain (--domain)")
        raise self._error(f"no document of XEP-0227: its root is <{local[:100]}/>")

    def _in_data(self, name: str, attrs: Attrs) -> int:
        space, _, local = name.rpartition(SEPARATOR)
        if local == "host" and space in _PIE:
            self._domain = attrs.get("jid", "")
            if not self._domain:
                raise self._error("a host without a jid")
            return HOST
        return self._other(name, attrs, DATA)

    def _in_host(self, name: str, attrs: Attrs) -> int:
        space, _, local = name.rpartition(SEPARATOR)
        if local != "user" or space not in _PIE:
            return self._other(name, attrs, HOST)
        self._draft = draft = Draft(attrs.get("name", ""), self._domain, self._place(), self._options.losses)
        draft.password(attrs.get("password", ""), is_doubtful=self._is_doubtful)
        draft.account.disabled = attrs.get(_DISABLED) == "true"
        draft.account.created = _number(attrs.get(_CREATED))
        return USER

    def _in_user(self, name: str, attrs: Attrs) -> int:
        draft = self._draft
        opened = _PARTS.get(name)
        if opened is not None:
            return opened
        taker = _TAKERS.get(name)
        if taker is None:
            return self._other(name, attrs, USER)
        self._taker = getattr(draft, taker)
        return TREE

    def _other(self, name: str, attrs: Attrs, state: int) -> int:
        """What XEP-0227 does not name there: an include, or something to be reported and passed over."""
        if name != _INCLUDE:
            account = self._draft.account.name if state == USER else self._domain
            self._options.losses.add("unknown-element", account, clark(name))
            return SKIP
        if "xpointer" in attrs or attrs.get("parse", "xml") != "xml":
            raise self._error("an include of a part of a document, or of text", "put the data in its place")
        href = attrs.get("href", "")[:LONGEST_HREF]
        include = Include(href, state, self._domain, self._parser.CurrentLineNumber)
        if state != USER:
            self.ready.append(include)
        elif self._include is not None:
            self._include(include, self._draft)
        return SKIP

    def _in_roster(self, name: str, attrs: Attrs) -> int:
        if name != _ITEM:
            return self._unknown(name)
        self._contact = self._draft.contact(attrs)
        return ITEM

    def _in_item(self, name: str, attrs: Attrs) -> int:
        if name not in _GROUPS:
            return self._unknown(name)
        return self._text_of("", GROUP)

    def _in_offline(self, name: str, attrs: Attrs) -> int:
        if name.rpartition(SEPARATOR)[2] != "message":
            return self._unknown(name)
        self._taker = self._draft.message
        return TREE

    def _in_private(self, name: str, attrs: Attrs) -> int:
        self._taker = self._draft.private
        return TREE

    def _in_pubsub(self, name: str, attrs: Attrs) -> int:
        if not name.endswith(f"{SEPARATOR}items"):
            return self._unknown(name)
        self._field = attrs.get("node", "")
        self._draft.node(self._field)
        return ITEMS

    def _in_items(self, name: str, attrs: Attrs) -> int:
        if self._field not in NODES or not name.endswith(f"{SEPARATOR}item"):
            self._draft.node(self._field, 1)
            return SKIP
        self._taker = self._take_item
        return TREE

    def _take_item(self, tree: Element) -> None:
        self._draft.item(self._field, tree)

    def _in_owner(self, name: str, attrs: Attrs) -> int:
        self._draft.node(attrs.get("node", ""))
        return SKIP

    def _in_archive(self, name: str, attrs: Attrs) -> int:
        if not self._options.archives or self._is_within:
            self._draft.lose("archive", "a message of the archive (XEP-0313)")
            return SKIP
        self._taker = self._take_result
        return TREE

    def _take_result(self, tree: Element) -> None:
        self.ready.append(Result(self._draft.account.name, tree))

    def _in_nothing(self, name: str, attrs: Attrs) -> int:
        return self._unknown(name)

    def _unknown(self, name: str) -> int:
        self._draft.lose("unknown-element", clark(name))
        return SKIP

    def _text_of(self, field: str, state: int) -> int:
        self._field = field
        self._text.clear()
        self._weight = 0
        return state

    # Openfire's own XML

    def _openfire(self) -> int:
        if not self._options.domain:
            raise self._error("Openfire's own XML does not say its domain", "say it (--domain)")
        self._domain = self._options.domain
        self._is_doubtful = not self._options.names_as_passwords
        return OPENFIRE

    def _in_openfire(self, name: str, attrs: Attrs) -> int:
        if name != "User":
            self._options.losses.add("unknown-element", self._domain, clark(name))
            return SKIP
        self._draft = Draft("", self._domain, self._place(), self._options.losses)
        return PERSON

    def _in_person(self, name: str, attrs: Attrs) -> int:
        if name == "Roster":
            return PEOPLE
        if name not in ("Username", "Password", "Name", "Email", "CreationDate", "ModifiedDate"):
            return self._unknown(name)
        return self._text_of(name, TEXT)

    def _person(self, text: str) -> None:
        """One field of a user: the name comes first."""
        draft = self._draft
        if self._field == "Username":
            draft.account.local = text
        elif self._field == "Password":
            draft.password(text, is_doubtful=self._is_doubtful)
        elif self._field == "CreationDate":
            at = _number(text)
            draft.account.created = at / 1000 if at is not None else None
        elif self._field in ("Name", "Email") and text:
            draft.lose("profile", self._field)

    def _in_people(self, name: str, attrs: Attrs) -> int:
        if name not in ("Item", "item"):
            return self._unknown(name)
        self._contact = self._draft.openfire_contact(attrs)
        return ITEM


_USER_PARTS: Final = {
    (ns.ROSTER, "query"): ROSTER,
    (ns.PRIVATE, "query"): PRIVATE,
    (ns.PUBSUB, "pubsub"): PUBSUB,
    (ns.PUBSUB_OWNER, "pubsub"): OWNER,
    (ns.PIE_ARCHIVE, "archive"): ARCHIVE,
    (ns.PIE, "offline-messages"): OFFLINE,
    (ns.OLD_PIE, "offline-messages"): OFFLINE,
}
_PARTS: Final = {SEPARATOR.join(name): state for name, state in _USER_PARTS.items()}
"""Children of a user that are read child by child, as expat names them."""

_USER_TREES: Final = {
    (ns.PIE_SCRAM, "scram-credentials"): "credentials",
    (ns.PIE, "scram-credentials"): "credentials",
    (ns.VCARD, "vCard"): "vcard",
    (ns.PRIVACY, "query"): "privacy",
    (ns.BLOCKING, "blocklist"): "blocklist",
    (ns.CLIENT, "presence"): "presence",
    (ns.SERVER, "presence"): "presence",
    (ns.PIE, "presence"): "presence",
    (ns.OLD_PIE, "presence"): "presence",
}
_TAKERS: Final = {SEPARATOR.join(name): taker for name, taker in _USER_TREES.items()}
"""Children of a user that are taken whole, and by which method of `Draft`."""


def _space(name: str) -> str:
    return name.rpartition(SEPARATOR)[0]


def _number(text: str | None) -> float | None:
    try:
        found = float(text) if text else None
    except ValueError:
        return None
    return found if found is not None and isfinite(found) else None


def _forget(tree: Element) -> None:
    """Nobody wants a tree yet."""
