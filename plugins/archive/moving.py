"""Archives written to a file, and taken from one: JSON Lines, a message each, in the order of time for each
account. `xmppd migrate archives` makes such files of other ones, and others of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from xmppd.plugin import (
    CommandError,
    Jid,
    Plugin,
    Prepared,
    Table,
    XmppdError,
    command,
    read_stanza,
    result_page,
)

from .ids import (
    EPOCH,
    MICROSECONDS,
    RANDOM_BYTES,
    at_of,
    bound,
    day_of,
    from_text,
    month_of,
    stamp_of,
    to_text,
)
from .keeping import Keeper, Lives, Writers

USAGE: Final = 2
MILLI: Final = 1000
"""Microseconds up to which stamps are exact."""
AT_ONCE: Final = 100
"""Messages that are written together, or become lines in one turn of the loop."""
SLICE: Final = 1 << 16
"""Bytes of messages that become lines in one turn, but for the last of them."""
HOUR: Final = 3600.0
"""Rows whose lives end within one are written together."""
SAMPLES: Final = 20
"""Lines of one call that are shown with what is wrong with them."""

After = Annotated[str, "go on where it was interrupted: the token that was named"]


class Portion(NamedTuple):
    """How much a call does: it looks at so many accounts together, ends after so many messages, and reads so
    many bytes of a file, of which no line may be longer.
    """

    accounts: int = 20
    messages: int = 20_000
    size: int = 1 << 20


class Line(NamedTuple):
    """A message as it comes from a file."""

    account: str
    id: bytes
    peer: str
    stanza: bytes


class Moving(Plugin):
    """The part of the archive that writes and reads files; its tables are those of the whole."""

    owners: Table
    messages: Table
    days: Table
    months: Table
    lives: Lives
    keeper: Keeper
    writers: Writers

    portion = Portion()

    async def uid_of(self, account: str) -> int | None:
        """The number of an archive, made now if need be; None: there is no such account."""
        raise NotImplementedError

    def since(self, owner: int) -> bytes:
        """From which id on each message of an archive has a row by its peer; b"": never."""
        raise NotImplementedError

    @command("Write archives to a file of JSON Lines", name="archive export", guarded=True, paged=True)
    async def export(
        self,
        file: Annotated[str, "its path on the server; nothing is overwritten"],
        *,
        account: Annotated[Jid | None, "only the archive of this one"] = None,
        after: After = "",
    ) -> dict[str, Any]:
        """How many archives and messages were written, a part at each call."""
        size, token = _token_of(after)
        path = _absolute(file)
        number = await asyncio.to_thread(_open, path, size if after else None)
        archives = messages = 0
        try:
            while True:
                rows, token = await self._some_owners(account, token)
                for row in rows:
                    count, written = await self._export_one(number, row)
                    archives += count > 0
                    messages += count
                    size += written
                if token is None or messages >= self.portion.messages:
                    break
            await asyncio.to_thread(os.fsync, number)
        finally:
            os.close(number)
        counts = {"messages": messages, "archives": archives}
        return result_page([], counts, after=None if token is None else f"{size}:{token.hex()}")

    async def _some_owners(
        self, account: Jid | None, token: bytes | None
    ) -> tuple[Sequence[Mapping[str, Any]], bytes | None]:
        if account is None:
            page = await self.owners.some(limit=self.portion.accounts, page=token)
            return page.rows, page.next
        row = await self.owners.get(account.bare)
        return [] if row is None else [row], None

    async def _export_one(self, number: int, row: Mapping[str, Any]) -> tuple[int, int]:
        """How many messages and bytes were written."""
        account, uid, count, size = row["account"], row["uid"], 0, 0
        oldest = (bound(self.lives.oldest(account)),)
        for month in await self.keeper.months_of(uid):
            columns = ("id", "peer", "stanza")
            async for rows in self.messages.stream(uid, month, columns=columns, after=oldest):
                for some in _slices(rows):
                    data = "".join([_line_of(account, *row) for row in some]).encode()
                    await asyncio.to_thread(_write, number, data)
                    count += len(some)
                    size += len(data)
        return count, size

    @command(
        "Take messages into archives from a file of JSON Lines",
        name="archive import",
        guarded=True,
        paged=True,
    )
    async def take(
        self,
        file: Annotated[str, "its path on the server"],
        *,
        dry_run: Annotated[bool, "write nothing"] = False,
        after: After = "",
    ) -> dict[str, Any]:
        """How many messages were taken, a part at each call. What is there already stays as it is. A row for
        the first lines of each call that could not be taken.
        """
        offset, _ = _token_of(after)
        path, refused = _absolute(file), list[dict[str, Any]]()
        counts = {"messages": 0, "there already": 0, "too old": 0, "refused": 0}
        data = await asyncio.to_thread(_read, path, offset, self.portion.size)
        lines = data.split(b"\n")
        rest = lines.pop() if len(data) >= self.portion.size else b""
        if len(rest) == len(data) > 0:
            raise CommandError(f"{path}: a line of more than {len(data)} bytes at byte {offset}")
        place, some = offset, list[Line]()
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    some.append(self._line(line))
                except CommandError as error:
                    counts["refused"] += 1
                    refused += [{"byte": place, "why": str(error)}] if len(refused) < SAMPLES else []
            place += len(line) + 1
            if number % AT_ONCE == 0:
                await self._take(some, counts, refused, is_dry=dry_run)
                await asyncio.sleep(0)
                some = []
        await self._take(some, counts, refused, is_dry=dry_run)
        token = f"{offset + len(data) - len(rest)}:" if len(data) >= self.portion.size else None
        return result_page(refused[:SAMPLES], counts, after=token, exit_code=1 if refused else 0)

    def _line(self, data: bytes) -> Line:
        """A line of a file; CommandError."""
        try:
            row = json.loads(data)
            name, at, stanza = str(row["id"]), _microsecond(row["at"]), row["stanza"].encode()
            message = read_stanza(stanza)
            account = Jid.parse(row["account"]).bare
            peer = Jid.parse(row.get("with") or _other(account, message.attrs)).bare
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, XmppdError) as error:
            raise CommandError(f"no message of an archive: {error!r}"[:200]) from None
        if message.kind != "message":
            raise CommandError("this is no message")
        if not 0 <= at <= self.now() * MICROSECONDS:
            raise CommandError("a message of before 1970, or one that is still to come")
        id = from_text(name)
        if id is None or at_of(id) // MILLI != at // MILLI:
            id = _made(at, name, stanza)
        return Line(account, id, peer, message.raw)

    async def _take(
        self, lines: Sequence[Line], counts: dict[str, int], refused: list[dict[str, Any]], *, is_dry: bool
    ) -> None:
        """Write some messages, each for what is left of its life, and first what they are found by, which an
        interruption may have left out.
        """
        index: dict[float | None, dict[Any, Prepared]] = {}
        writes: dict[float | None, dict[Any, Prepared]] = {}
        months: dict[tuple[int, int], list[Line]] = {}
        for line in lines:
            uid = await self._number_of(line.account, is_dry=is_dry)
            if uid is None:
                counts["refused"] += 1
                refused.append({"account": line.account, "why": "there is no such account"})
            else:
                months.setdefault((uid, month_of(line.id)), []).append(line)
        for (uid, month), some in months.items():
            keys = [(id,) for id in dict.fromkeys(line.id for line in some)]
            there = {row["id"] for row in await self.messages.get_rows(uid, month, keys=keys)}
            for line in some:
                left = self._left_of(line)
                is_late = left is not None and left <= 0
                if not is_late:
                    self._find_by(index, uid, line)
                if line.id in there or is_late:
                    counts["there already" if line.id in there else "too old"] += 1
                    continue
                counts["messages"] += 1
                row = self.writers.message.row(uid, month, line.id, line.peer, line.stanza)
                writes.setdefault(left, {})[uid, line.id, line.peer] = row
        for group in (index, writes) if not is_dry else ():
            for ttl, rows in group.items():
                await self.messages.write([*rows.values()], ttl=ttl)

    async def _number_of(self, account: str, *, is_dry: bool) -> int | None:
        if not is_dry:
            return await self.uid_of(account)
        row = await self.owners.get(account)
        if row is not None:
            uid: int = row["uid"]
            return uid
        return 0 if await self.server.account_exists(account) else None

    def _left_of(self, line: Line) -> float | None:
        """What is left of a message's life, in whole hours; None: it lives for ever."""
        life = self.lives.of(line.account)
        age = self.now() - at_of(line.id) / MICROSECONDS
        return life and math.ceil((life - age) / HOUR) * HOUR

    def _find_by(self, index: dict[float | None, dict[Any, Prepared]], uid: int, line: Line) -> None:
        """The rows by which a message is found, to be written once each: they live as those of a new message,
        for there may be newer ones of the same day.
        """
        day, month = day_of(line.id), month_of(line.id)
        index.setdefault(None, {})[uid, month] = self.writers.month.row(uid, month)
        rows, since = index.setdefault(self.lives.index_of(line.account), {}), self.since(uid)
        if since and line.id >= since:
            rows[uid, line.peer, line.id] = self.writers.by_peer.row(uid, month, line.peer, line.id)
        else:
            rows[uid, line.peer, day] = self.writers.day.row(uid, line.peer, day)


def _slices(rows: Sequence[tuple[bytes, str, bytes]]) -> Iterator[list[tuple[bytes, str, bytes]]]:
    """Messages in the pieces that become lines in one turn."""
    some, size = list[tuple[bytes, str, bytes]](), 0
    for row in rows:
        some.append(row)
        size += len(row[2])
        if len(some) == AT_ONCE or size >= SLICE:
            yield some
            some, size = [], 0
    if some:
        yield some


def _line_of(account: str, id: bytes, peer: str, stanza: bytes) -> str:
    row = {"account": account, "id": to_text(id), "at": stamp_of(id), "with": peer, "stanza": stanza.decode()}
    return json.dumps(row, ensure_ascii=False) + "\n"


def _microsecond(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - EPOCH) // timedelta(microseconds=1)


def _made(at: int, id: str, stanza: bytes) -> bytes:
    """The id of a message that had another one elsewhere: the same each time it comes."""
    digest = hashlib.sha256(id.encode("utf-8", "replace") + b"\0" + stanza).digest()
    return bound(at) + digest[:RANDOM_BYTES]


def _other(account: str, attrs: Mapping[str, str]) -> str:
    """The other end of a message in the archive of an account."""
    sender = attrs.get("from", account)
    return attrs.get("to", account) if Jid.parse(sender).bare == account else sender


def _absolute(file: str) -> Path:
    path = Path(file)
    if not path.is_absolute():
        raise CommandError(f"{file}: name the whole path, from / on", USAGE)
    return path


def _token_of(after: str) -> tuple[int, bytes | None]:
    """A place in the file, and where owners go on; CommandError."""
    size, _, token = after.partition(":")
    try:
        return int(size or "0"), bytes.fromhex(token) or None
    except ValueError:
        raise CommandError("after: this is not a token", USAGE) from None


def _open(path: Path, size: int | None) -> int:
    """A file to be written, a new one or behind so many bytes; CommandError."""
    try:
        if size is None:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        number = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        os.ftruncate(number, size)
        os.lseek(number, size, os.SEEK_SET)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}") from None
    return number


def _write(number: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(number, data) :]
    except OSError as error:
        raise CommandError(f"the file cannot be written: {error.strerror}") from None


def _read(path: Path, offset: int, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from None
