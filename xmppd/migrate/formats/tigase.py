"""Rosters of Tigase: texts of `<contact jid= subs= name= groups="a,b"/>` one after the other, one an account.

They come in three ways:

- a dump (or SQLite file) with `tig_users` and `tig_pairs`, where the text has the key `roster`; passwords are
  in `tig_users` or `tig_user_credentials`, vCards have the key `vCard`;
- a file of lines `account TAB text`, as `mysql --batch` prints them (`\\n`, `\\t`, `\\\\` are undone);
- a folder of files, or one file, named `account`, `account.xml` or `account.txt`, with the text alone.

A group with a comma in its name has become two, there.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.core.roster.subscription import Subscription
from xmppd.migrate.fragments import BadXml, element_of
from xmppd.migrate.keys import HASHES, from_base64, keys_of
from xmppd.migrate.lines import lines_of
from xmppd.migrate.record import Account, Contact, Losses, Unreadable
from xmppd.migrate.scratch import Pieces
from xmppd.migrate.source import (
    LONGEST_VALUE,
    Options,
    SourceError,
    Strays,
    head_of,
    is_folder,
    is_within,
    opened,
)
from xmppd.migrate.sql.text import database, tables_of

BOM: Final = b"\xef\xbb\xbf"
SUFFIXES: Final = (".xml", ".txt")
TABLES: Final[Mapping[str, Sequence[str]]] = {
    "tig_users": ("uid", "user_id", "user_pw", "account_status"),
    "tig_user_credentials": ("uid", "mechanism", "value"),
    "tig_pairs": ("uid", "pkey", "pval"),
    "tig_offline_messages": (),
}
STATES: Final[Mapping[str, tuple[Subscription, bool, bool, bool]]] = {
    "none": ("none", False, False, False),
    "none_pending_out": ("none", True, False, False),
    "none_pending_in": ("none", False, True, False),
    "none_pending_out_in": ("none", True, True, False),
    "to": ("to", False, False, False),
    "to_pending_in": ("to", False, True, False),
    "from": ("from", False, False, False),
    "from_pending_out": ("from", True, False, False),
    "both": ("both", False, False, False),
    "none_pre_approved": ("none", False, False, True),
    "none_pending_out_pre_approved": ("none", True, False, True),
    "to_pre_approved": ("to", False, False, True),
}
"""Their `subs` -> subscription, ask, pending, approved."""

ENABLED: Final = frozenset((None, "", 1, "1", -4, "-4"))
"""Values of `account_status` with which one may log in: active, and paid."""

BROKEN, LOGIN, CREDENTIAL, ROSTER, VCARD = range(5)
"""Kinds of pieces."""

_LINE = re.compile(rb"[^\s<>{}\"']+\t[ ]*(?:<contact\s|\r?$|\r?\n)")
_ESCAPE = re.compile(r"\\([nt0\\])")
_LETTERS: Final[Mapping[str, str]] = {"n": "\n", "t": "\t", "0": "\0", "\\": "\\"}
_HASHED = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")


class BadRoster(ValueError):
    """A text that is no roster."""


def contacts_of(text: str, account: str, losses: Losses) -> list[Contact]:
    """The contacts of a roster as text; one that cannot be is a loss `unreadable-contact`. BadRoster."""
    try:
        tree = element_of(f"<roster>{text}</roster>")
    except BadXml as error:
        raise BadRoster(f"roster: {error}") from None
    contacts = []
    for child in tree:
        try:
            contact = _contact(child)
        except BadRoster as error:
            losses.add("unreadable-contact", account, str(error))
            continue
        if contact is not None:
            contacts.append(contact)
    return contacts


def _contact(tree: Element) -> Contact | None:
    if tree.tag != f"{{{ns.CLIENT}}}contact":
        raise BadRoster(f"an element {tree.tag.rpartition('}')[2][:50]} in a roster")
    jid, word = tree.get("jid", ""), tree.get("subs", "none").lower()
    if word == "remove":
        return None
    if not jid:
        raise BadRoster("a contact without address")
    if word not in STATES:
        raise BadRoster(f"{jid[:100]}: no such state: {word[:30]}")
    subscription, ask, pending, approved = STATES[word]
    name, groups = tree.get("name") or None, [part for part in tree.get("groups", "").split(",") if part]
    named = name is not None and name != jid.partition("@")[0]  # which is what it has where nobody named it
    listed = not pending or subscription != "none" or ask or named or bool(groups)
    return Contact(jid, subscription, ask, pending, approved, name, groups, None, listed)


class TigaseReader:
    """Accounts of one source, sorted by name."""

    def __init__(self, path: Path, options: Options, load: Callable[[TigaseReader, Path], None]) -> None:
        self.options = options
        self.pieces = Pieces(options.scratch)
        self.strays = Strays(path)
        self._path = path
        try:
            load(self, path)
            self._total = self.pieces.count()
        except BaseException:
            self.pieces.close()
            raise

    @property
    def total(self) -> int:
        return self._total

    def close(self) -> None:
        self.pieces.close()

    def keep(self, name: str, kind: int, data: str, where: str) -> None:
        """One piece of an account, or what is wrong with its name."""
        if "@" not in name and name and self.options.domain:
            name = f"{name}@{self.options.domain}"
        if "@" in name:
            self.pieces.add(name, kind, f"{where}\n{data}")
        else:
            self.strays.add(name, f"{name[:100]!r} has no domain", where)

    def __iter__(self) -> Iterator[Account | Unreadable]:
        yield from self.strays.items
        for name, pieces in self.pieces:
            if pieces is None:
                yield Unreadable(name, "it has more than fits into memory", self._path.name)
            else:
                yield self._account(name, pieces)

    def _account(self, name: str, pieces: Sequence[tuple[int, str]]) -> Account | Unreadable:
        local, _, domain = name.rpartition("@")
        account = Account(local, domain)
        rosters = 0
        for kind, data in pieces:
            where, _, text = data.partition("\n")
            account.where = account.where or where
            rosters += kind == ROSTER
            if kind == BROKEN or rosters > 1:
                return Unreadable(name, text if kind == BROKEN else "a second roster of this account", where)
            try:
                self._take(account, kind, text)
            except BadRoster as error:
                return Unreadable(name, str(error), where)
        return account

    def _take(self, account: Account, kind: int, text: str) -> None:
        losses = self.options.losses
        if kind == ROSTER:
            account.roster = contacts_of(text, account.name, losses)
        elif kind == VCARD:
            try:
                account.vcard = element_of(text, ns.VCARD)
            except BadXml as error:
                losses.add("unreadable-vcard", account.name, str(error))
        elif kind == LOGIN:
            password, account.disabled = json.loads(text)
            if password and _HASHED.fullmatch(password):
                losses.add("password-hash", account.name)
            elif password:
                account.password = password
        else:
            mechanism, value = json.loads(text)
            _take_credential(account, mechanism, value, losses)


def _take_credential(account: Account, mechanism: str, value: str, losses: Losses) -> None:
    """A row of `tig_user_credentials`: `s=salt,i=iterations,t=stored,e=server`, or `p=` with what both keys
    are made of (RFC 5802 3).
    """
    if mechanism == "PLAIN":
        account.password = value
        return
    parts = {key: data for key, _, data in (part.partition("=") for part in value.split(","))}
    stored, server = from_base64(parts.get("t", "")), from_base64(parts.get("e", ""))
    salted = from_base64(parts.get("p", ""))
    if salted and not stored and len(salted) in HASHES:
        name = HASHES[len(salted)]
        stored = hmac.digest(salted, b"Client Key", name)
        stored, server = _hashed(name, stored), hmac.digest(salted, b"Server Key", name)
    found = keys_of(stored, server, from_base64(parts.get("s", "")), parts.get("i"))
    if found is None or not mechanism.startswith("SCRAM-"):
        losses.add("credential", account.name, mechanism)
    else:
        account.keys[found[0]] = found[1]


def _hashed(name: str, data: bytes) -> bytes:
    return hashlib.new(name, data).digest()


def _load_dump(reader: TigaseReader, path: Path) -> None:
    losses = reader.options.losses
    dump = database(path, reader.options.scratch, TABLES, losses)
    try:
        users = "tig_users AS u"
        for name, password, status in dump.rows(f"SELECT user_id, user_pw, account_status FROM {users}"):
            if "@" in _text(name):  # others are components and settings of the server
                reader.keep(
                    _text(name), LOGIN, json.dumps([_text(password), status not in ENABLED]), path.name
                )
        joined = f"AS p JOIN {users} ON u.uid = p.uid WHERE instr(u.user_id, '@')"
        sql = f"SELECT u.user_id, p.mechanism, p.value FROM tig_user_credentials {joined}"
        for name, mechanism, value in dump.rows(sql):
            reader.keep(_text(name), CREDENTIAL, json.dumps([_text(mechanism), _text(value)]), path.name)
        for name, key, value in dump.rows(f"SELECT u.user_id, p.pkey, p.pval FROM tig_pairs {joined}"):
            kind = {"roster": ROSTER, "vcard": VCARD}.get(_text(key).lower())
            if kind is None:
                losses.add("pair", _text(name), _text(key))
            elif _text(value).strip() or kind == ROSTER:
                reader.keep(_text(name), kind, _text(value), path.name)
        if count := dump.counts.get("tig_offline_messages", 0):
            losses.add("offline", "", "tig_offline_messages", count)
    finally:
        dump.close()


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def _load_lines(reader: TigaseReader, path: Path) -> None:
    with opened(path) as file:
        for number, byte, line in lines_of(file, LONGEST_VALUE, path):
            where = f"{path.name}:{number}"
            if line is None:
                reader.strays.add("", f"a line of more than {LONGEST_VALUE} bytes (byte {byte})", where)
                continue
            try:
                text = (line.removeprefix(BOM) if number == 1 else line).decode().rstrip("\r\n")
            except UnicodeDecodeError as error:
                reader.strays.add("", f"not UTF-8 at byte {error.start} of the line", where)
                continue
            name, tab, roster = text.partition("\t")
            if tab:
                reader.keep(name, ROSTER, _ESCAPE.sub(_unescaped, roster), where)
            elif text.strip():
                reader.strays.add(name[:200], "no tab between the account and its roster", where)


def _unescaped(found: re.Match[str]) -> str:
    return _LETTERS[found[1]]


def _load_files(reader: TigaseReader, path: Path) -> None:
    for each in _files(path):
        with opened(each) as file:
            data = file.read(LONGEST_VALUE + 1)
        name = each.name.removesuffix(".gz")
        for suffix in SUFFIXES:
            name = name.removesuffix(suffix)
        try:
            if len(data) > LONGEST_VALUE:
                raise BadRoster(f"a roster of more than {LONGEST_VALUE} bytes")
            reader.keep(name, ROSTER, data.removeprefix(BOM).decode(), each.name)
        except UnicodeDecodeError as error:
            reader.keep(name, BROKEN, f"not UTF-8 at byte {error.start}", each.name)
        except BadRoster as error:
            reader.keep(name, BROKEN, str(error), each.name)


def _files(path: Path) -> list[Path]:
    """The file, or the files of a folder that hold rosters, in the order of their names."""
    if not is_folder(path):
        return [path]
    try:
        found = sorted(each for each in path.iterdir() if is_within(each, path) and each.is_file())
    except OSError as error:
        raise SourceError(f"cannot be read: {error}", file=path) from None
    return [each for each in found if _is_roster(head_of(each))]


def _is_roster(head: bytes) -> bool:
    return head.removeprefix(BOM).lstrip().startswith(b"<contact ")


class _TigaseFormat:
    name = "tigase"

    def recognises(self, path: Path, head: bytes) -> bool:
        """A dump, lines, or files, as above."""
        if is_folder(path):
            with suppress(SourceError):
                return bool(_files(path))
            return False
        return _is_roster(head) or _LINE.match(head.removeprefix(BOM)) is not None or _is_dump(path, head)

    def open(self, path: Path, options: Options) -> TigaseReader:
        if is_folder(path):
            return TigaseReader(path, options, _load_files)
        head = head_of(path)
        if _is_dump(path, head):
            return TigaseReader(path, options, _load_dump)
        return TigaseReader(path, options, _load_files if _is_roster(head) else _load_lines)


def _is_dump(path: Path, head: bytes) -> bool:
    return bool(tables_of(path, head).keys() & {"tig_users", "tig_pairs"})


FORMAT: Final = _TigaseFormat()
