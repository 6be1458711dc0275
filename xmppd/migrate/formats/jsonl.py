"""JSON Lines: one account a line, all of it. The lossless form, which scripts of operators can write, too.

UTF-8 (a BOM is allowed), each line one object. Only `account` is needed; what is absent is as if it were the
default. Keys that are not listed here are errors.

| key | value |
|---|---|
| `account` | `local@domain`; the domain may be left out where `--domain` says it |
| `where` | where an earlier source had it |
| `password` | plain |
| `keys` | by hash (`sha1`, `sha256`, …): `{"salt": base64, "iterations": n, "stored": base64, "server": base64}` |
| `disabled` | true or false |
| `created`, `modified`, `last` | seconds since the epoch; `last`: of the last logout |
| `last_status` | text of the last unavailable presence |
| `roster` | array of `{"jid", "subscription": none, to, from or both, "ask": true or false, "pending", "approved", "name", "groups": [...], "request": XML of a presence stanza, "listed"}`, where `jid` is needed |
| `vcard` | XML (XEP-0054) |
| `private` | array of XML, each an element of XEP-0049 |
| `offline` | array of `{"message": XML, "at": seconds since the epoch}` |
| `blocks` | array of addresses |

XML stands as text in a string; names without a prefix or `xmlns` are in `jabber:client`.
"""  # noqa: E501

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn
from xml.etree.ElementTree import Element

from xmppd.migrate.fragments import BadXml, element_of
from xmppd.migrate.keys import HASHES, MOST_ITERATIONS, from_base64
from xmppd.migrate.lines import lines_of
from xmppd.migrate.record import Account, Contact, Keys, Offline, Unreadable
from xmppd.migrate.scratch import Seen
from xmppd.migrate.source import LONGEST_VALUE, Options, SourceError, Strays, opened
from xmppd.migrate.target import created, finished
from xmppd.xml.build import serialize

LONGEST_LINE: Final = 2 * LONGEST_VALUE
BOM: Final = b"\xef\xbb\xbf"
SUBSCRIPTIONS: Final = frozenset({"none", "to", "from", "both"})
NAMED: Final = re.compile(r'"account" ?: ?"([^"\\]{1,200})"')
WORDS: Final = {str: "text", bool: "true or false", list: "an array", dict: "an object"}


class BadLine(ValueError):
    """A line is not an account: why, without any value that could be secret."""


def _no_number(word: str) -> NoReturn:
    raise BadLine(f"{word} is no number of JSON")


DECODER: Final = json.JSONDecoder(parse_constant=_no_number)
ENCODER: Final = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))


def line_of(account: Account) -> str:
    """The account as a line without its end; what has the default is left out."""
    row: dict[str, Any] = {"account": account.name}
    for key in ("where", "password", "disabled", "created", "modified", "last", "last_status"):
        value = getattr(account, key)
        if value is not None and value is not False and (value != "" or key == "password"):
            row[key] = value
    if account.keys:
        row["keys"] = {name: _keys_row(keys) for name, keys in account.keys.items()}
    if account.roster:
        row["roster"] = [_contact_row(contact) for contact in account.roster]
    if account.vcard is not None:
        row["vcard"] = _xml(account.vcard)
    if account.private:
        row["private"] = [_xml(tree) for tree in account.private]
    if account.offline:
        row["offline"] = [_offline_row(offline) for offline in account.offline]
    if account.blocks:
        row["blocks"] = account.blocks
    return ENCODER.encode(row)


def _keys_row(keys: Keys) -> dict[str, Any]:
    return {
        "salt": b64encode(keys.salt).decode(),
        "iterations": keys.iterations,
        "stored": b64encode(keys.stored).decode(),
        "server": b64encode(keys.server).decode(),
    }


def _contact_row(contact: Contact) -> dict[str, Any]:
    row: dict[str, Any] = {"jid": contact.jid, "subscription": contact.subscription}
    if contact.ask:
        row["ask"] = True
    if contact.pending:
        row["pending"] = True
    if contact.approved:
        row["approved"] = True
    if contact.name is not None:
        row["name"] = contact.name
    if contact.groups:
        row["groups"] = contact.groups
    if contact.request is not None:
        row["request"] = _xml(contact.request)
    if not contact.listed:
        row["listed"] = False
    return row


def _offline_row(offline: Offline) -> dict[str, Any]:
    row: dict[str, Any] = {"message": _xml(offline.message)}
    if offline.at is not None:
        row["at"] = offline.at
    return row


def _xml(tree: Element) -> str:
    return serialize(tree).decode()


def account_of(text: str, domain: str = "") -> Account:
    """The account that a line is; `domain` is that of names without one. BadLine."""
    row = _object(text)
    name = row.get("account")
    if type(name) is not str or not name:
        raise BadLine("no `account`")
    account = Account("", "")
    for key, value in row.items():
        take = ACCOUNT_KEYS.get(key)
        if take is None:
            raise BadLine(f"unknown key {key[:50]!r}")
        if value is not None:
            take(account, key, value)
    account.local, at, account.domain = name.rpartition("@")
    if not at:
        account.local, account.domain = name, domain
    if not account.domain:
        raise BadLine(f"{name[:100]!r} has no domain")
    return account


def wire_of(item: Account | Unreadable) -> str:
    """A line for another process, which `item_of` understands."""
    if isinstance(item, Account):
        return line_of(item)
    return ENCODER.encode({"unreadable": item.name, "why": item.why, "where": item.where})


def item_of(text: str) -> Account | Unreadable:
    """What `wire_of` was given. BadLine."""
    if not text.startswith('{"unreadable":'):
        return account_of(text)
    row = _object(text)
    return Unreadable(row["unreadable"], row["why"], row["where"])


def _object(text: str) -> dict[str, Any]:
    try:
        row = DECODER.decode(text)
        if "\\ud" in text or "\\uD" in text:
            ENCODER.encode(row).encode()
    except UnicodeEncodeError:
        raise BadLine("half a surrogate pair") from None
    except json.JSONDecodeError as error:
        raise BadLine(f"not JSON: {error.msg} at letter {error.pos}") from None
    except RecursionError:
        raise BadLine("too deeply nested") from None
    except BadLine:
        raise
    except ValueError as error:  # digits beyond what Python reads
        raise BadLine(f"not JSON: {error}") from None
    if type(row) is not dict:
        raise BadLine("not an object")
    return row


def _refuse(key: str, wanted: str) -> NoReturn:
    raise BadLine(f"{key[:50]!r} has to be {wanted}")


def _plain(kind: type) -> Callable[[Account, str, Any], None]:
    def take(account: Account, key: str, value: Any) -> None:
        if type(value) is not kind:
            _refuse(key, WORDS[kind])
        if key != "account":
            setattr(account, key, value)

    return take


def _take_seconds(account: Account, key: str, value: Any) -> None:
    setattr(account, key, _seconds(key, value))


def _seconds(key: str, value: Any) -> float:
    try:
        if type(value) in (int, float) and math.isfinite(value):
            return value  # type: ignore[no-any-return]
    except OverflowError:
        pass
    _refuse(key, "seconds since the epoch")


def _take_keys(account: Account, key: str, value: Any) -> None:
    if type(value) is not dict:
        _refuse(key, "an object by hash")
    for name, row in value.items():
        if type(row) is not dict or row.keys() != {"salt", "iterations", "stored", "server"}:
            _refuse(f"keys.{name}", "an object of salt, iterations, stored and server")
        salt, stored, server = (_bytes(name, row[part]) for part in ("salt", "stored", "server"))
        count = row["iterations"]
        if type(count) is not int or not 0 < count <= MOST_ITERATIONS:
            _refuse(f"keys.{name}.iterations", f"a number from 1 to {MOST_ITERATIONS}")
        if HASHES.get(len(stored)) != name or len(server) != len(stored):
            _refuse(f"keys.{name}", "keys of that hash")
        account.keys[name] = Keys(salt, count, stored, server)


def _bytes(name: str, value: Any) -> bytes:
    data = from_base64(value) if type(value) is str else None
    if data is None:
        _refuse(f"keys.{name}", "in base64")
    return data


def _take_roster(account: Account, key: str, value: Any) -> None:
    if type(value) is not list:
        _refuse(key, "an array")
    account.roster = [_contact(row) for row in value]


CONTACT_KEYS: Final[dict[str, type]] = {
    "jid": str,
    "subscription": str,
    "ask": bool,
    "pending": bool,
    "approved": bool,
    "name": str,
    "groups": list,
    "request": str,
    "listed": bool,
}


def _contact(row: Any) -> Contact:
    if type(row) is not dict:
        _refuse("roster", "an array of objects")
    if not row.get("jid"):
        raise BadLine("a contact without `jid`")
    for key, value in row.items():
        if type(value) is not CONTACT_KEYS.get(key):
            return _contact(_without_nulls(row))
    if row.get("subscription", "none") not in SUBSCRIPTIONS:
        _refuse("subscription", "none, to, from or both")
    if (groups := row.get("groups")) and not all(type(group) is str for group in groups):
        _refuse("groups", "an array of texts")
    if "request" in row:
        row["request"] = _tree("request", row["request"])
    return Contact(**row)


def _without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """The same without keys that are null; BadLine for what remains wrong."""
    for key, value in row.items():
        if key not in CONTACT_KEYS:
            raise BadLine(f"unknown key {key[:50]!r} of a contact")
        if value is not None and type(value) is not CONTACT_KEYS[key]:
            _refuse(key, WORDS[CONTACT_KEYS[key]])
    return {key: value for key, value in row.items() if value is not None}


def _take_vcard(account: Account, key: str, value: Any) -> None:
    account.vcard = _tree(key, value)


def _take_private(account: Account, key: str, value: Any) -> None:
    if type(value) is not list:
        _refuse(key, "an array")
    account.private = [_tree(key, text) for text in value]


def _take_offline(account: Account, key: str, value: Any) -> None:
    if type(value) is not list:
        _refuse(key, "an array")
    for row in value:
        if type(row) is not dict or "message" not in row or row.keys() - {"message", "at"}:
            _refuse(key, "an array of objects with `message` and maybe `at`")
        at = row.get("at")
        message = _tree("offline", row["message"])
        account.offline.append(Offline(message, None if at is None else _seconds("at", at)))


def _take_blocks(account: Account, key: str, value: Any) -> None:
    if type(value) is not list or not all(type(jid) is str for jid in value):
        _refuse(key, "an array of addresses")
    account.blocks = value


def _tree(key: str, text: Any) -> Element:
    if type(text) is not str:
        _refuse(key, "XML as text")
    try:
        return element_of(text)
    except BadXml as error:
        raise BadLine(f"{key!r}: {error}") from None


ACCOUNT_KEYS: Final[dict[str, Callable[[Account, str, Any], None]]] = {
    "account": _plain(str),
    "where": _plain(str),
    "password": _plain(str),
    "keys": _take_keys,
    "disabled": _plain(bool),
    "created": _take_seconds,
    "modified": _take_seconds,
    "last": _take_seconds,
    "last_status": _plain(str),
    "roster": _take_roster,
    "vcard": _take_vcard,
    "private": _take_private,
    "offline": _take_offline,
    "blocks": _take_blocks,
}


class JsonLines:
    """Accounts of one file, in its order."""

    total: int | None = None

    def __init__(self, path: Path, options: Options) -> None:
        self._path, self._options = path, options
        opened(path).close()

    def __iter__(self) -> Iterator[Account | Unreadable]:
        strays = Strays(self._path)
        with opened(self._path) as file, Seen(self._options.scratch) as seen:
            for number, byte, line in lines_of(file, LONGEST_LINE, self._path):
                where = f"{self._path.name}:{number}"
                if line is None:
                    yield Unreadable("", f"a line of more than {LONGEST_LINE} bytes (byte {byte})", where)
                elif text := (line.removeprefix(BOM) if number == 1 else line).strip():
                    item = self._item(text, where, seen)
                    if isinstance(item, Unreadable) and not item.name:
                        strays.add("", item.why, where)
                    yield item

    def _item(self, line: bytes, where: str, seen: Seen) -> Account | Unreadable:
        try:
            account = account_of(line.decode(), self._options.domain)
        except UnicodeDecodeError as error:
            return Unreadable(_named(line), f"not UTF-8 at byte {error.start} of the line", where)
        except BadLine as error:
            return Unreadable(_named(line), str(error), where)
        if (first := seen.before(account.name, where)) is not None:
            return Unreadable(account.name, f"the account is there already: {first}", where)
        account.where = account.where or where
        return account

    def close(self) -> None:
        """Nothing is kept between two runs."""


def _named(line: bytes) -> str:
    """The account of a line that is none, as much as is to be seen at its beginning."""
    found = NAMED.search(line[:4096].decode("utf-8", "replace"))
    return found[1] if found else ""


class _JsonLinesFormat:
    name = "jsonl"

    def recognises(self, path: Path, head: bytes) -> bool:
        """A file whose first line begins an object with one of our keys."""
        line = head.removeprefix(BOM).lstrip().partition(b"\n")[0]
        return line.startswith(b"{") and any(
            f'"{key}"'.encode() in line for key in ("account", "roster", "jid", "password")
        )

    def open(self, path: Path, options: Options) -> JsonLines:
        return JsonLines(path, options)


FORMAT: Final = _JsonLinesFormat()


class JsonLinesWriter:
    """Writes accounts into a new file that only its owner may read; SourceError where that cannot be."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = created(path)

    def write(self, account: Account) -> None:
        """One more line."""
        try:
            self._file.write(f"{line_of(account)}\n".encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise SourceError(f"cannot be written: {error}", file=self._path) from None

    def close(self) -> None:
        """All lines are in the file, and on disk."""
        finished(self._file, self._path)
