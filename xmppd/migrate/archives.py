"""Archives of messages (XEP-0313) in files: as XEP-0227 has them, in `<archive/>` of a user, and as JSON
Lines, which `archive export` writes and `archive import` takes. Both are read and written a
message at a time, however many there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from xmppd import ns
from xmppd.migrate.formats.pie import PieReader
from xmppd.migrate.fragments import element_of, renamed
from xmppd.migrate.pie.document import Result
from xmppd.migrate.record import Losses, Unreadable
from xmppd.migrate.source import LONGEST_VALUE, Options, SourceError, head_of, opened
from xmppd.migrate.stamps import moment, stamp
from xmppd.migrate.target import created, finished
from xmppd.xml.build import escape_attribute, serialize

MESSAGE: Final = f"{{{ns.CLIENT}}}message"
STANZA_ID: Final = f"{{{ns.STANZA_ID}}}stanza-id"
_MESSAGE_IN: Final = "{*}forwarded/{*}message"
_DELAY_IN: Final = "{*}forwarded/{*}delay"
_SECOND: Final = 1_000_000
_START: Final = b"<message"
_HEAD: Final = f"<?xml version='1.0' encoding='UTF-8'?>\n<server-data xmlns='{ns.PIE}'>\n".encode()


class Archived(NamedTuple):
    """A message of the archive of `account`, its id there, and the microsecond that it is of."""

    account: str
    id: str
    at: int
    stanza: bytes


def convert(source: Path, target: Path, losses: Losses, scratch: Path) -> dict[str, int]:
    """Write the other form of a source, JSON Lines of XEP-0227 and the other way round, to a file that is not
    there yet; how many archives and messages it has. SourceError.
    """
    is_pie = source.is_dir() or head_of(source).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    messages = of_pie(source, losses, scratch) if is_pie else of_lines(source, losses)
    write, head, tail = (_lines, b"", b"") if is_pie else (_users, _HEAD, b"</server-data>\n")
    counts = {"archives": 0, "messages": 0}
    file = created(target)
    try:
        file.write(head)
        for account, some in groupby(messages, attrgetter("account")):
            counts["archives"] += 1
            counts["messages"] += write(file, account, some)
        file.write(tail)
    except OSError as error:
        raise SourceError(f"cannot be written: {error.strerror}", file=target) from None
    finally:
        finished(file, target)
    return counts


# XEP-0227


def of_pie(source: Path, losses: Losses, scratch: Path) -> Iterator[Archived]:
    """The messages of all archives of a document, or of the documents of a folder."""
    others = Losses()
    options = Options(losses=others, scratch=scratch, archives=True)
    account, last = "", 0
    for item in PieReader(source, options).everything():
        if isinstance(item, Unreadable):
            losses.add("account", item.name, item.why)
        if not isinstance(item, Result):
            continue
        message = _message(item, losses)
        if message is None:
            continue
        if message.account != account:
            account, last = message.account, 0
        # Stamps have seconds only in some sources; what is in the order of time there stays so.
        at = last + 1 if last - _SECOND < message.at <= last else message.at
        last = at
        yield message._replace(at=at)
    if (within := others.kinds.get("archive")) is not None:
        losses.kinds["archive"] = within


def _message(item: Result, losses: Losses) -> Archived | None:
    tree, delay = item.tree.find(_MESSAGE_IN), item.tree.find(_DELAY_IN)
    at = None if delay is None else moment(delay.get("stamp", ""))
    if tree is None or at is None or at < 0:
        losses.add("message", item.account, f"{item.tree.get('id', '')}: no message, or no moment")
        return None
    tree = renamed(tree, tree.tag[1:].partition("}")[0], ns.CLIENT)
    tree.tail = None
    for child in tree.findall(STANZA_ID):
        if child.get("by") == item.account:
            tree.remove(child)
    return Archived(item.account, item.tree.get("id", ""), round(at * _SECOND), serialize(tree))


def _users(file: BinaryIO, account: str, messages: Iterator[Archived]) -> int:
    """One account with its archive; how many messages it has."""
    local, _, domain = account.rpartition("@")
    count = 0
    file.write(
        f"<host jid='{escape_attribute(domain)}'><user name='{escape_attribute(local)}'>"
        f"<archive xmlns='{ns.PIE_ARCHIVE}'>\n".encode()
    )
    for message in messages:
        stamped = stamp(message.at / _SECOND)
        head = (
            f"<result xmlns='{ns.MAM}' id='{escape_attribute(message.id)}'><forwarded xmlns='{ns.FORWARD}'>"
            f"<delay xmlns='{ns.DELAY}' stamp='{stamped}'/><message xmlns='{ns.CLIENT}'"
        ).encode()
        file.write(head + message.stanza[len(_START) :] + b"</forwarded></result>\n")
        count += 1
    file.write(b"</archive></user></host>\n")
    return count


# JSON Lines


def of_lines(source: Path, losses: Losses) -> Iterator[Archived]:
    """The messages of a file of JSON Lines; what is none is lost."""
    with opened(source) as file:
        number = 0
        while line := file.readline(LONGEST_VALUE):
            number += 1
            if not line.strip():
                continue
            try:
                yield _archived(line)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                losses.add("message", "", f"line {number}: {error!r}")


def _archived(line: bytes) -> Archived:
    """A line; ValueError, KeyError, TypeError, AttributeError for what is no message of an archive."""
    row = json.loads(line)
    tree = element_of(row["stanza"])
    at = moment(row["at"])
    if tree.tag != MESSAGE or at is None:
        raise ValueError("no message, or no moment")
    return Archived(str(row["account"]), str(row["id"]), round(at * _SECOND), serialize(tree))


def _lines(file: BinaryIO, account: str, messages: Iterator[Archived]) -> int:
    count = 0
    for message in messages:
        at = stamp(message.at / _SECOND)
        row = {"account": account, "id": message.id, "at": at, "stanza": message.stanza.decode()}
        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        count += 1
    return count
