"""CSV (RFC 4180, UTF-8, a BOM is allowed): a file of accounts, a file of rosters, or a folder of both.

The first line names the columns, in any order and case. A file with the column `contact` is one of rosters.
Only `account`, and `contact` there, are needed; unknown columns are errors. An empty field means that there
is nothing, or the default. Rows of one account need not be together.

| accounts | |
|---|---|
| `account` | `local@domain`; the domain may be left out where `--domain` says it |
| `password` | plain |
| `keys` | as in RFC 5803, separated by blanks: `SCRAM-SHA-1$iterations:salt$stored:server`, all in base64 |
| `disabled` | `true` or `false` (also `yes`, `no`, `1`, `0`); empty: false |
| `created`, `modified`, `last` | seconds since the epoch |
| `last_status` | text of the last unavailable presence |
| `vcard` | XML (XEP-0054) |
| `blocks` | addresses, separated like groups |

| rosters | |
|---|---|
| `account`, `contact`, `name` | |
| `subscription` | `none`, `to`, `from`, `both`; empty: none |
| `ask`, `pending`, `approved` | as `disabled`; `ask` also `subscribe` |
| `groups` | separated by `;`, where `\\;` is a semicolon and `\\\\` a backslash within a name |
| `request` | XML of the presence stanza that asked |
| `listed` | empty: false where there is nothing but a request, else true |

Columns with other names are renamed by `--columns OURS=THEIRS`; `--columns =THEIRS` leaves one out.
"""

from __future__ import annotations

import csv
import json
import math
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import Element

from xmppd.core.roster.subscription import Subscription
from xmppd.migrate.fragments import BadXml, element_of
from xmppd.migrate.keys import from_base64, keys_of
from xmppd.migrate.lines import lines_of
from xmppd.migrate.record import Account, Contact, Keys, Losses, Unreadable
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
from xmppd.migrate.target import created, finished
from xmppd.xml.build import serialize

LONGEST_ROW: Final = 2 * LONGEST_VALUE
BOM: Final = b"\xef\xbb\xbf"
ACCOUNTS: Final = (
    "account",
    "password",
    "keys",
    "disabled",
    "created",
    "modified",
    "last",
    "last_status",
    "vcard",
    "blocks",
)
ROSTERS: Final = (
    "account",
    "contact",
    "name",
    "subscription",
    "ask",
    "pending",
    "approved",
    "groups",
    "request",
    "listed",
)
BROKEN, OF_ACCOUNT, OF_ROSTER = range(3)
"""Kinds of pieces."""

TRUE: Final = frozenset(("true", "yes", "1"))
FALSE: Final = frozenset(("", "false", "no", "0"))
SUBSCRIPTIONS: Final[Mapping[str, Subscription]] = {
    "": "none",
    "none": "none",
    "to": "to",
    "from": "from",
    "both": "both",
}
_PART = re.compile(r"((?:[^\\;]++|\\.?)*+)(?:;|$)", re.DOTALL)
_COLUMN = re.compile(r"[^\W\d][\w .-]{0,60}")
_SCRAM = re.compile(r"SCRAM-SHA-(\d+)\$(\d{1,9}):([^$:]+)\$([^$:]+):([^$:]+)", re.ASCII)


class BadRow(ValueError):
    """A row is wrong: why, without any value that could be secret."""


def parts_of(text: str) -> list[str]:
    """The names in a field of several; empty ones do not count."""
    if "\\" not in text:
        return [part for part in text.split(";") if part]
    return [re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in _PART.findall(text) if part]


def joined(parts: Sequence[str]) -> str:
    """The field of several names."""
    return ";".join(part.replace("\\", "\\\\").replace(";", "\\;") for part in parts)


class _Feed:
    """Lines of a file as text for `csv`, with what they cost since the last row."""

    def __init__(self, file: BufferedReader, path: Path) -> None:
        self._lines, self._path = lines_of(file, LONGEST_ROW, path), path
        self.number = self.size = 0

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        self.number, byte, line = next(self._lines)
        self.size += len(line or b"")
        if line is None or self.size > LONGEST_ROW:
            raise SourceError(
                f"a row of more than {LONGEST_ROW} bytes",
                file=self._path,
                line=self.number,
                byte=byte,
                hint="is a quote open?",
            )
        try:
            return (line.removeprefix(BOM) if self.number == 1 else line).decode()
        except UnicodeDecodeError as error:
            at = byte + error.start
            raise SourceError("not UTF-8", file=self._path, line=self.number, byte=at) from None


class _Table:
    """One file: its columns, and its rows as (line, fields)."""

    def __init__(self, path: Path, file: BufferedReader, options: Options) -> None:
        self._path = path
        self._feed = _Feed(file, path)
        csv.field_size_limit(LONGEST_VALUE)  # of the whole process: nobody else reads CSV
        self._rows = csv.reader(self._feed, strict=True)
        _, names = next(self, (1, []))
        self.columns = _columns(path, names, options.columns)
        self.is_roster = "contact" in self.columns

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        return self

    def __next__(self) -> tuple[int, list[str]]:
        line = self._feed.number + 1
        self._feed.size = 0
        try:
            return line, next(self._rows)
        except csv.Error as error:
            raise SourceError(f"not CSV: {error}", file=self._path, line=line) from None


def _columns(path: Path, names: Sequence[str], wishes: Sequence[str]) -> list[str]:
    """The columns that a first line names, in our words ("": left out)."""
    renamed = {theirs.strip().lower(): ours.strip().lower() for ours, _, theirs in map(_halves, wishes)}
    found = [name.strip().lower() for name in names]
    columns = [renamed.get(name, name) for name in found]
    if "account" not in columns:
        is_other = len(names) == 1 and (";" in names[0] or "\t" in names[0])
        hint = "columns are separated by commas" if is_other else "the first line names the columns"
        raise SourceError("no column `account`", file=path, line=1, hint=hint)
    known = ROSTERS if "contact" in columns else ACCOUNTS
    for column in columns:
        if column and column not in known:
            hint = f"there are {', '.join(known)}; --columns renames others or leaves them out"
            raise SourceError(f"unknown column {column[:50]!r}", file=path, line=1, hint=hint)
        if column and columns.count(column) > 1:
            raise SourceError(f"two columns {column!r}", file=path, line=1)
    return columns


def _halves(wish: str) -> tuple[str, str, str]:
    if "=" not in wish:
        raise SourceError(f"{wish!r} is no pair of columns", hint="it is OURS=THEIRS, or =THEIRS")
    return wish.partition("=")


class CsvReader:
    """Accounts of one file or folder, sorted by name."""

    def __init__(self, path: Path, options: Options) -> None:
        self._options = options
        self._paths = _files(path)
        self._columns: list[list[str]] = []
        self._strays = Strays(path)
        self._pieces = Pieces(options.scratch)
        try:
            for place, each in enumerate(self._paths):
                with opened(each) as file:
                    self._load(place, _Table(each, file, options))
            self._total = self._pieces.count()
        except BaseException:
            self._pieces.close()
            raise

    @property
    def total(self) -> int:
        return self._total

    def close(self) -> None:
        self._pieces.close()

    def _load(self, place: int, table: _Table) -> None:
        width, key = len(table.columns), table.columns.index("account")
        kind = OF_ROSTER if table.is_roster else OF_ACCOUNT
        encode = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode
        kept = [place for place, column in enumerate(table.columns) if column]
        is_whole = len(kept) == width
        self._columns.append([table.columns[each] for each in kept])
        for line, row in table:
            if len(row) == width and (name := self._named(row[key])):
                data = row if is_whole else [row[each] for each in kept]
                self._pieces.add(name, kind, encode([place, line, *data]))
            elif row:
                self._refuse(place, line, row, key, width)

    def _named(self, text: str) -> str:
        """The whole name of an account; "" where it has no domain."""
        if "@" in text:
            return text
        return f"{text}@{self._options.domain}" if text and self._options.domain else ""

    def _refuse(self, place: int, line: int, row: list[str], key: int, width: int) -> None:
        name = row[key] if len(row) > key else ""
        if len(row) != width:
            why = f"{len(row)} fields instead of {width}"
        else:
            why = f"{name[:100]!r} has no domain" if name else "no account"
        if whole := self._named(name):
            self._pieces.add(whole, BROKEN, json.dumps([place, line, why]))
        else:
            self._strays.add(name, why, self._where(place, line))

    def _where(self, place: int, line: int) -> str:
        return f"{self._paths[place].name}:{line}"

    def __iter__(self) -> Iterator[Account | Unreadable]:
        yield from self._strays.items
        for name, pieces in self._pieces:
            if pieces is None:
                yield Unreadable(name, "it has more than fits into memory", self._paths[0].name)
            else:
                yield self._account(name, pieces)

    def _account(self, name: str, pieces: Sequence[tuple[int, str]]) -> Account | Unreadable:
        local, _, domain = name.rpartition("@")
        account = Account(local, domain)
        first = ""
        for kind, data in pieces:
            place, line, *fields = json.loads(data)
            where = self._where(place, line)
            account.where = account.where or where
            try:
                if kind == BROKEN:
                    raise BadRow(fields[0])
                row = dict(zip(self._columns[place], fields, strict=True))
                if kind == OF_ROSTER:
                    account.roster.append(_contact(row))
                    continue
                if first:
                    raise BadRow(f"a second row of this account, after {first}")
                first = where
                _fill(account, row)
            except BadRow as error:
                return Unreadable(name, str(error), where)
        return account


def _files(path: Path) -> list[Path]:
    """The file, or the files of a folder in the order of their names."""
    if not is_folder(path):
        return [path]
    try:
        found = sorted(each for each in path.iterdir() if _is_ours(each, path))
    except OSError as error:
        raise SourceError(f"cannot be read: {error}", file=path) from None
    if not found:
        raise SourceError("no *.csv in this folder", file=path)
    return found


def _is_ours(path: Path, folder: Path) -> bool:
    return path.name.lower().endswith((".csv", ".csv.gz")) and is_within(path, folder) and path.is_file()


def _fill(account: Account, row: Mapping[str, str]) -> None:
    account.password = row.get("password") or None
    account.keys = _keys(row.get("keys", ""))
    account.disabled = _bool("disabled", row.get("disabled", ""))
    account.created = _seconds("created", row.get("created", ""))
    account.modified = _seconds("modified", row.get("modified", ""))
    account.last = _seconds("last", row.get("last", ""))
    account.last_status = row.get("last_status", "")
    account.vcard = _tree("vcard", row.get("vcard", ""))
    account.blocks = parts_of(row.get("blocks", ""))


def _contact(row: Mapping[str, str]) -> Contact:
    get = row.get
    if not row["contact"]:
        raise BadRow("no contact")
    word = get("subscription", "")
    subscription = SUBSCRIPTIONS.get(word) or SUBSCRIPTIONS.get(word.strip().lower())
    if subscription is None:
        raise BadRow(f"{word[:20]!r} is no subscription: none, to, from or both")
    ask = get("ask", "") == "subscribe" or _bool("ask", get("ask", ""))
    pending, name, groups = (
        _bool("pending", get("pending", "")),
        get("name") or None,
        parts_of(get("groups", "")),
    )
    listed = get("listed", "")
    return Contact(
        row["contact"],
        subscription,
        ask,
        pending,
        _bool("approved", get("approved", "")),
        name,
        groups,
        _tree("request", get("request", "")),
        _bool("listed", listed)
        if listed
        else not pending or subscription != "none" or ask or bool(name or groups),
    )


def _bool(name: str, text: str) -> bool:
    if not text:
        return False
    word = text.strip().lower()
    if word not in TRUE and word not in FALSE:
        raise BadRow(f"{name} has to be true or false")
    return word in TRUE


def _seconds(name: str, text: str) -> float | None:
    if not text.strip():
        return None
    with suppress(ValueError):
        seconds = float(text)
        if math.isfinite(seconds):
            return seconds
    raise BadRow(f"{name} has to be seconds since the epoch")


def _tree(name: str, text: str) -> Element | None:
    try:
        return element_of(text) if text else None
    except BadXml as error:
        raise BadRow(f"{name}: {error}") from None


def _keys(text: str) -> dict[str, Keys]:
    keys: dict[str, Keys] = {}
    for word in text.split():
        found = _SCRAM.fullmatch(word)
        if found is None:
            raise BadRow("keys have to be SCRAM-SHA-1$iterations:salt$stored:server")
        number, iterations, salt, stored, server = found.groups()
        known = keys_of(from_base64(stored), from_base64(server), from_base64(salt), iterations)
        if known is None or known[0] != f"sha{number}":
            raise BadRow(f"keys that are none of SCRAM-SHA-{number}")
        keys[known[0]] = known[1]
    return keys


class _CsvFormat:
    name = "csv"

    def recognises(self, path: Path, head: bytes) -> bool:
        """A file whose first line has a column `account`, or a folder with one."""
        if is_folder(path):
            with suppress(SourceError):
                return any(_has_columns(head_of(each)) for each in _files(path))
            return False
        return _has_columns(head)

    def open(self, path: Path, options: Options) -> CsvReader:
        return CsvReader(path, options)


def _has_columns(head: bytes) -> bool:
    line = head.removeprefix(BOM).partition(b"\n")[0].decode("utf-8", "replace").lower()
    names = [name.strip().strip('"').strip() for name in re.split("[,;\t]", line)]
    return "account" in names and all(not name or _COLUMN.fullmatch(name) for name in names)


FORMAT: Final = _CsvFormat()


class CsvWriter:
    """Writes accounts.csv and rosters.csv into a new folder that only its owner may read. Offline messages
    and private XML have no place there (losses `offline`, `private`); a name or group that is empty is none.
    """

    def __init__(self, folder: Path, losses: Losses) -> None:
        self._losses = losses
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise SourceError(f"cannot be made: {error}", file=folder) from None
        self._paths = folder / "accounts.csv", folder / "rosters.csv"
        self._files = [TextIOWrapper(created(each), "utf-8", "replace", "") for each in self._paths]
        self._accounts, self._rosters = (csv.writer(file) for file in self._files)
        self._row(self._accounts, ACCOUNTS)
        self._row(self._rosters, ROSTERS)

    def _row(self, writer: Any, row: Sequence[object]) -> None:
        try:
            writer.writerow(row)
        except OSError as error:
            raise SourceError(f"cannot be written: {error}", file=self._paths[0].parent) from None

    def write(self, account: Account) -> None:
        """One more row there, and one for each contact here."""
        name = account.name
        self._row(self._accounts, [name, *(take(account) for take in ACCOUNT_FIELDS)])
        for contact in account.roster:
            self._row(self._rosters, [name, *(take(contact) for take in CONTACT_FIELDS)])
        if account.offline:
            self._losses.add("offline", name, count=len(account.offline))
        for tree in account.private:
            self._losses.add("private", name, tree.tag)

    def close(self) -> None:
        """Both files are on disk."""
        for file, path in zip(self._files, self._paths, strict=True):
            file.flush()
            finished(file.detach(), path)


def _word(value: bool) -> str:
    return "true" if value else ""


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)


def _xml(tree: Element | None) -> str:
    return "" if tree is None else serialize(tree).decode()


def _scram(keys: Mapping[str, Keys]) -> str:
    def text(data: bytes) -> str:
        return b64encode(data).decode()

    return " ".join(
        f"SCRAM-SHA-{name[3:]}${each.iterations}:{text(each.salt)}${text(each.stored)}:{text(each.server)}"
        for name, each in keys.items()
    )


ACCOUNT_FIELDS: Final[tuple[Callable[[Account], str], ...]] = (
    lambda account: account.password or "",
    lambda account: _scram(account.keys),
    lambda account: _word(account.disabled),
    lambda account: _number(account.created),
    lambda account: _number(account.modified),
    lambda account: _number(account.last),
    lambda account: account.last_status,
    lambda account: _xml(account.vcard),
    lambda account: joined(account.blocks),
)
CONTACT_FIELDS: Final[tuple[Callable[[Contact], str], ...]] = (
    lambda contact: contact.jid,
    lambda contact: contact.name or "",
    lambda contact: contact.subscription,
    lambda contact: _word(contact.ask),
    lambda contact: _word(contact.pending),
    lambda contact: _word(contact.approved),
    lambda contact: joined(contact.groups),
    lambda contact: _xml(contact.request),
    lambda contact: "true" if contact.listed else "false",
)
"""What stands in the columns after the first."""
