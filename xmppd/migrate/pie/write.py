"""XEP-0227 1.1, written: as it stands there, and in the two dialects in which Prosody and ejabberd read it.

| dialect | where | what is different |
|---|---|---|
| `standard` | one document | |
| `prosody` | a folder, a document `USER@HOST.xml` for each account | |
| `ejabberd` | a folder, `main.xml` that includes a document for each host | keys in base64 twice, of one hash, and not beside a password |

Prosody 0.12 (mod_storage_xep0227) reads keys of its own `password_hash` only, requests only where the roster has
an item, and neither blocks nor messages; `ejabberdctl import_piefxis` (23.01) takes neither `ask` nor `approved`,
and stops at the first account that is there already. Blocks are the default privacy list in which
ejabberd keeps them, for XEP-0227 knows no others. What it has no place for is told to `Losses`: whether an account
is disabled, when it was made, and its last logout.
"""  # noqa: E501

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import BinaryIO, Final
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.migrate.record import Account, Contact, Keys, Losses, Offline
from xmppd.migrate.source import SourceError
from xmppd.migrate.stamps import stamp
from xmppd.migrate.target import Writer, created, finished
from xmppd.xml.build import delay, element, escape_attribute, escape_text, insert_child, serialize

DIALECTS: Final = ("standard", "prosody", "ejabberd")

BLOCKED: Final = "Blocked contacts"
"""The privacy list in which ejabberd keeps blocks."""

_MECHANISMS: Final[Mapping[str, str]] = {
    "sha1": "SCRAM-SHA-1",
    "sha256": "SCRAM-SHA-256",
    "sha512": "SCRAM-SHA-512",
    "sha224": "SCRAM-SHA-224",
    "sha384": "SCRAM-SHA-384",
}
_OF_EJABBERD: Final = ("sha1", "sha256", "sha512")
"""Hashes that ejabberd can read, the likeliest first."""

_HEAD: Final = b"<?xml version='1.0' encoding='UTF-8'?>\n"
_ROOT: Final = f"xmlns='{ns.PIE}'"
_LONGEST_NAME: Final = 255
"""Bytes of a file's name."""

_REPLACEMENT: Final = "\ufffd"


def writer_of(path: Path, dialect: str, losses: Losses) -> Writer:
    """What writes a new document, or several into a new folder; SourceError where none can be made."""
    if dialect == "prosody":
        return AccountFiles(path, losses)
    if dialect == "ejabberd":
        return HostFiles(path, losses)
    return OneDocument(path, losses)


class OneDocument:
    """All accounts in one document, a host for each run of accounts of one domain."""

    def __init__(self, path: Path, losses: Losses) -> None:
        self._path = path
        self._losses = losses
        self._domain = ""
        self._file = created(path)
        self._put(_HEAD + f"<server-data {_ROOT}>\n".encode())

    def write(self, account: Account) -> None:
        """One more user; SourceError."""
        user = user_of(account, self._losses)
        if user is None:
            return
        if account.domain != self._domain:
            self._put((b"</host>\n" if self._domain else b"") + _host(account.domain))
            self._domain = account.domain
        self._put(user + b"\n")

    def close(self) -> None:
        """The document is whole, and on disk."""
        self._put((b"</host>\n" if self._domain else b"") + b"</server-data>\n")
        finished(self._file, self._path)

    def _put(self, data: bytes) -> None:
        _put(self._file, self._path, data)


class AccountFiles:
    """A document for each account, named as Prosody does: the raw name, and `.xml`."""

    def __init__(self, path: Path, losses: Losses) -> None:
        self._path = path
        self._losses = losses
        _folder(path)

    def write(self, account: Account) -> None:
        """One more document; SourceError. A name that no file can have is a loss."""
        name = f"{account.name}.xml"
        if "/" in name or "\0" in name or len(name.encode("utf-8", "replace")) > _LONGEST_NAME:
            self._losses.add("account", account.name, "no file can have its name")
            return
        user = user_of(account, self._losses)
        if user is None:
            return
        path = self._path / name
        with created(path) as file:
            _put(file, path, _HEAD + f"<server-data {_ROOT}>".encode() + _host(account.domain))
            _put(file, path, user + b"</host></server-data>\n")

    def close(self) -> None:
        """All documents are on disk."""
        os.sync()


class HostFiles:
    """A document for each host, and `main.xml`, which includes them: ejabberd reads a host that stands in the
    main document into memory as a whole, and one that is included user by user.
    """

    def __init__(self, path: Path, losses: Losses) -> None:
        self._path = path
        self._losses = losses
        self._domain = ""
        self._names: list[str] = []
        self._file: BinaryIO | None = None
        _folder(path)
        self._main = created(path / "main.xml")

    def write(self, account: Account) -> None:
        """One more user; SourceError."""
        user = user_of(account, self._losses, is_ejabberd=True)
        if user is None:
            return
        if self._file is None or account.domain != self._domain:
            self._end()
            self._names.append(f"host{len(self._names) + 1}.xml")
            self._file = created(self._last)
            self._domain = account.domain
            _put(self._file, self._last, _HEAD + _host(account.domain, _ROOT))
        _put(self._file, self._last, user + b"\n")

    def close(self) -> None:
        """All documents are whole, and on disk."""
        self._end()
        includes = "".join(f"<xi:include href='{name}'/>\n" for name in self._names)
        root = f"<server-data {_ROOT} xmlns:xi='{ns.XINCLUDE}'>\n{includes}</server-data>\n"
        _put(self._main, self._path / "main.xml", _HEAD + root.encode())
        finished(self._main, self._path / "main.xml")

    @property
    def _last(self) -> Path:
        return self._path / self._names[-1]

    def _end(self) -> None:
        if self._file is not None:
            _put(self._file, self._last, b"</host>\n")
            finished(self._file, self._last)
            self._file = None


def _folder(path: Path) -> None:
    """A folder that is new or empty, for its owner alone; SourceError."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        is_empty = next(path.iterdir(), None) is None
    except OSError as error:
        raise SourceError(f"cannot be written: {error.strerror}", file=path) from None
    if not is_empty:
        raise SourceError("is not empty", file=path, hint="name a new folder")


def _put(file: BinaryIO, path: Path, data: bytes) -> None:
    try:
        file.write(data)
    except OSError as error:
        raise SourceError(f"cannot be written: {error.strerror}", file=path) from None


def _host(domain: str, more: str = "") -> bytes:
    return f"<host{more and ' '}{more} jid='{escape_attribute(domain)}'>\n".encode()


def user_of(account: Account, losses: Losses, *, is_ejabberd: bool = False) -> bytes | None:
    """The `<user/>` of an account where the default namespace is that of XEP-0227; None for one whose name
    cannot stand in XML, which is a loss.
    """
    if not account.local or not account.domain or not _is_legal(account.local + account.domain):
        losses.add("account", account.name, "its name cannot stand in XML")
        return None
    _lose(account, losses)
    password = _password(account, losses, is_ejabberd)
    name = escape_attribute(account.local)
    head = f"<user name='{name}'"
    if password is not None:
        head += f" password='{escape_attribute(password)}'"
    children = [
        *_waiting(account, losses, is_ejabberd),
        *_credentials(account, losses, is_ejabberd=is_ejabberd, has_password=password is not None),
        *_roster(account, losses),
        *_requests(account),
        *_blocks(account, losses),
        *([serialize(account.vcard, ns.PIE)] if account.vcard is not None else ()),
        *_private(account),
    ]
    return head.encode() + b">" + b"".join(children) + b"</user>" if children else f"{head}/>".encode()


def _lose(account: Account, losses: Losses) -> None:
    if account.disabled:
        losses.add("disabled", account.name, "who reads it lets the account log in again")
    if account.created is not None:
        losses.add("created", account.name)
    if account.last is not None or account.last_status:
        losses.add("last", account.name)


def _password(account: Account, losses: Losses, is_ejabberd: bool) -> str | None:
    """The plain password, if it can be read again."""
    password = account.password
    if password is None:
        return None
    if not password or not _is_legal(password) or (is_ejabberd and password.startswith("scram:")):
        losses.add("password", account.name, "it cannot be written")
        return None
    return password


def _credentials(
    account: Account, losses: Losses, *, is_ejabberd: bool, has_password: bool
) -> Iterator[bytes]:
    """`<scram-credentials/>`. ejabberd takes one of them, if there is no password, and in base64 twice."""
    keys = account.keys
    if is_ejabberd:
        usable = [name for name in _OF_EJABBERD if name in keys and not has_password]
        keys = {name: keys[name] for name in usable[:1]}
    for name in account.keys:
        if name in keys and name in _MECHANISMS:
            yield _scram(_MECHANISMS[name], keys[name], 2 if is_ejabberd else 1)
        elif not has_password:
            losses.add("keys", account.name, name)


def _scram(mechanism: str, keys: Keys, times: int) -> bytes:
    salt, server, stored = (_base64(data, times) for data in (keys.salt, keys.server, keys.stored))
    return (
        f"<scram-credentials xmlns='{ns.PIE_SCRAM}' mechanism='{mechanism}'>"
        f"<iter-count>{keys.iterations}</iter-count><salt>{salt}</salt>"
        f"<server-key>{server}</server-key><stored-key>{stored}</stored-key></scram-credentials>"
    ).encode()


def _base64(data: bytes, times: int) -> str:
    for _ in range(times):
        data = b64encode(data)
    return data.decode()


def _waiting(account: Account, losses: Losses, is_ejabberd: bool) -> Iterator[bytes]:
    if account.offline:
        messages = [_message(account, offline, losses, is_ejabberd) for offline in account.offline]
        yield b"<offline-messages>" + b"".join(messages) + b"</offline-messages>"


def _message(account: Account, offline: Offline, losses: Losses, is_ejabberd: bool) -> bytes:
    """A message, with the delay that says when it was taken in. ejabberd stops at one that is from nobody."""
    message = offline.message
    if is_ejabberd and not message.get("from"):
        message = copy(message)
        message.set("from", account.domain)
    raw = serialize(message, ns.PIE)
    if offline.at is None:
        return raw
    try:
        at = stamp(offline.at)
    except ValueError:
        losses.add("stamp", account.name, str(offline.at))
        return raw
    return insert_child(raw, "message", delay(account.domain, at))


def _roster(account: Account, losses: Losses) -> Iterator[bytes]:
    items = [_item(account, contact, losses) for contact in account.roster if _is_item(contact)]
    if any(items):
        yield f"<query xmlns='{ns.ROSTER}'>{''.join(items)}</query>".encode()


def _is_item(contact: Contact) -> bool:
    """Whether a contact is anything but a request."""
    says = contact.name is not None or contact.groups or contact.ask or contact.approved
    return contact.listed or contact.subscription != "none" or bool(says)


def _item(account: Account, contact: Contact, losses: Losses) -> str:
    if not contact.jid or not _is_legal(contact.jid):
        losses.add("contact", account.name, f"{contact.jid!r}: its address cannot stand in XML")
        return ""
    if not all(map(_is_legal, (contact.name or "", *contact.groups))):
        losses.add(
            "characters", account.name, f"{contact.jid}: XML has no place for some of its name or groups"
        )
    attrs = f" jid='{escape_attribute(contact.jid)}'"
    if contact.name is not None:
        attrs += f" name='{escape_attribute(contact.name)}'"
    attrs += f" subscription='{contact.subscription}'"
    if contact.ask:
        attrs += " ask='subscribe'"
    if contact.approved:
        attrs += " approved='true'"
    groups = "".join(f"<group>{escape_text(group)}</group>" for group in contact.groups if group)
    return f"<item{attrs}>{groups}</item>" if groups else f"<item{attrs}/>"


def _requests(account: Account) -> Iterator[bytes]:
    """Requests as presence stanzas, from addresses by which the contacts are found again."""
    waiting = [contact for contact in account.roster if contact.pending and _is_legal(contact.jid)]
    known = {contact.jid for contact in account.roster} if waiting else frozenset()
    for contact in waiting:
        request = contact.request
        sender = request.get("from", "") if request is not None else ""
        is_told = sender not in known and sender.partition("/")[0] == contact.jid
        attrs = dict(request.attrib) if request is not None else {}
        attrs |= {"type": "subscribe", "from": sender if is_told else contact.jid}
        tree = Element(f"{{{ns.CLIENT}}}presence", attrs)
        if request is not None:
            tree.text = request.text
            tree.extend(request)
        yield serialize(tree, ns.PIE)


def _blocks(account: Account, losses: Losses) -> Iterator[bytes]:
    found = [jid for jid in dict.fromkeys(account.blocks) if jid and _is_legal(jid)]
    for jid in account.blocks:
        if not _is_legal(jid):
            losses.add("block", account.name, f"{jid!r}: it cannot stand in XML")
    if not found:
        return
    items = "".join(
        f"<item type='jid' value='{escape_attribute(jid)}' action='deny' order='{order}'/>"
        for order, jid in enumerate(found, 1)
    )
    yield (
        f"<query xmlns='{ns.PRIVACY}'><default name='{BLOCKED}'/>"
        f"<list name='{BLOCKED}'>{items}</list></query>"
    ).encode()


def _private(account: Account) -> Iterator[bytes]:
    if account.private:
        yield serialize(element(f"{{{ns.PRIVATE}}}query", None, *account.private), ns.PIE)


def _is_legal(text: str) -> bool:
    """Whether XML has a place for all characters of a text."""
    return text.isprintable() or escape_text(text).count(_REPLACEMENT) == text.count(_REPLACEMENT)
