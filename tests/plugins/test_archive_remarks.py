"""What messages say of earlier ones, where those are looked for, and how often."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
import pytest_asyncio
from stores import new_store

from plugins.archive.content import Said, said_in
from plugins.archive.ids import DAY, Pool, day_of, month_of
from plugins.archive.remarks import FREE, MOST, ROWS_A_SECOND, Errands, remark_of
from plugins.archive.seeking import DAYS as DAYS_AT_ONCE
from plugins.archive.seeking import MOST as MOST_SOUGHT
from plugins.archive.seeking import PAGE, Seeker
from plugins.archive.tombstones import is_tombstone, tombstone
from xmppd import ns
from xmppd.store.table import Store, Table
from xmppd.xml.stanza import Stanza, read

MARKER = f"<displayed xmlns='{ns.CHAT_MARKERS}' id='m'/>"
RETRACTION = f"<retract xmlns='{ns.RETRACTION}' id='m'/>"


def message(inner: str, attrs: str = "from='a@b/c' to='d@e/f' id='i'") -> Stanza:
    return read(f"<message {attrs}>{inner}</message>".encode())


def test_what_is_said_of_an_earlier_message() -> None:
    found = remark_of(message(MARKER))
    assert found is not None and found.author == "d@e" and not found.is_retraction
    assert (found.sender, found.by, found.to, found.about, found.id) == ("a@b", "a@b/c", "d@e", "m", "i")
    for inner in (RETRACTION, MARKER + RETRACTION, RETRACTION.replace("urn", "&#117;rn")):
        found = remark_of(message(inner))
        assert found is not None and found.author == "a@b" and found.is_retraction
    own = remark_of(message(MARKER, "from='a@b/c'"))
    assert own is not None and own.to == "a@b" and own.id == ""


@pytest.mark.parametrize(
    "inner",
    [
        "<body>x</body>",
        f"<body>{ns.RETRACTION} xmlns</body>",
        f"<markable xmlns='{ns.CHAT_MARKERS}'/>",
        f"<displayed xmlns='{ns.CHAT_MARKERS}'/>",
        f"<retract xmlns='{ns.RETRACTION}' id=''/>",
        f"<x xmlns='urn:x'>{RETRACTION}</x>",
    ],
)
def test_what_says_nothing_of_an_earlier_one(inner: str) -> None:
    assert remark_of(message(inner)) is None


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ("<body>x</body>", Said.NEW),
        ("<body xml:lang='en'>x</body>", Said.NEW),
        ("<subject>x</subject>", Said.NEW),
        (f"<x xmlns='{ns.CONFERENCE}' jid='r@m'/>", Said.NEW),
        (f"<x xmlns='{ns.OLD_OPENPGP}'>x</x>", Said.NEW),
        (f"<openpgp xmlns='{ns.OPENPGP}'>x</openpgp>", Said.NEW),
        (f"<encrypted xmlns='{ns.OMEMO_2}'><payload>x</payload></encrypted>", Said.NEW),
        (f"<encrypted xmlns='{ns.OMEMO_2}'><header/></encrypted>", Said.NOTHING),
        (f"<body>x</body><replace xmlns='{ns.CORRECTION}' id='m'/>", Said.CHANGE),
        (f"<body>x</body>{RETRACTION}", Said.NOTHING),
        (f"<body>x</body>{RETRACTION.replace('urn', '&#117;rn')}", Said.NOTHING),
        (f"<retracted xmlns='{ns.RETRACTION}' id='m'/>", Said.NOTHING),
        (f"<x xmlns='{ns.MUC_USER}'><decline/></x>", Said.NOTHING),
        (f"<x xmlns='urn:x'><forwarded xmlns='{ns.FORWARD}'><body>x</body></forwarded></x>", Said.NOTHING),
        (MARKER, Said.NOTHING),
    ],
)
def test_what_there_is_to_read(inner: str, said: Said) -> None:
    assert said_in(message(inner).raw) is said


def test_a_tombstone_says_who_to_whom_and_no_more() -> None:
    stone = tombstone(
        b"<message from='a@b/c' to='d@e' xml:lang='de' id='1'><body>x</body></message>", "r'", "T"
    )
    assert stone == (
        b"<message from='a@b/c' to='d@e' id='1'>"
        b"<retracted xmlns='urn:xmpp:message-retract:1' id='r&apos;' stamp='T'/></message>"
    )
    assert is_tombstone(stone)
    assert not is_tombstone(stone.replace(b"</message>", b"<body>x</body></message>"))
    assert not is_tombstone(b"<message from='a@b'><body>x</body></message>")


class Chores:
    """What there is for accounts, without a clock: what is to be gone on with is in `later`."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.later: list[tuple[float, Callable[[str], None], str]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.errands = Errands(self._spawn, self._later)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    def _later(self, seconds: float, method: Callable[[str], None], account: str) -> None:
        self.later.append((seconds, method, account))

    def work(self, name: str, rows: int = 1) -> Callable[[], Awaitable[int]]:
        async def work() -> int:
            await asyncio.sleep(0)
            self.done.append(name)
            return rows

        return work

    async def rest(self) -> None:
        while self._tasks:
            await self._tasks.pop()


@pytest.mark.asyncio
async def test_one_thing_after_the_other_and_what_is_outdated_is_left_out() -> None:
    chores = Chores()
    for key, name in (("x", "first"), ("y", "old"), ("z", "second"), ("y", "new")):
        assert chores.errands.add("a", (key,), chores.work(name))
    assert chores.errands.add("b", ("x",), chores.work("other"))
    await chores.rest()
    assert [name for name in chores.done if name != "other"] == ["first", "second", "new"]
    assert "other" in chores.done and chores.later == [] and len(chores.errands) == 0


@pytest.mark.asyncio
async def test_who_has_much_looked_for_waits() -> None:
    chores = Chores()
    chores.errands.add("a", ("1",), chores.work("dear", FREE + 1))
    await asyncio.sleep(0)
    chores.errands.add("a", ("2",), chores.work("next"))
    await chores.rest()
    assert chores.done == ["dear"]
    [(seconds, method, account)] = chores.later
    assert seconds == (FREE + 1) / ROWS_A_SECOND
    for number in range(MOST):
        assert chores.errands.add("a", (str(number),), chores.work("more")) is (number < MOST)
    assert not chores.errands.add("a", ("one too many",), chores.work("more"))
    method(account)
    await chores.rest()
    assert len(chores.done) == 1 + MOST


@pytest.mark.asyncio
async def test_where_there_is_no_room_the_first_of_its_group_gives_way() -> None:
    chores = Chores()
    chores.errands.add("a", ("dear",), chores.work("dear", FREE + 1))
    await chores.rest()
    for number in range(MOST):
        kind = "x" if number == 5 else "y"
        assert chores.errands.add("a", (kind, "k", str(number)), chores.work(f"{kind}{number}"))
    assert not chores.errands.add("a", ("y", "k", "new"), chores.work("new"))
    assert not chores.errands.add("a", ("x", "l", "new"), chores.work("new"), ("x", "l"))
    assert chores.errands.add("a", ("x", "k", "new"), chores.work("new"), ("x", "k"))
    [(_, method, account)] = chores.later
    method(account)
    await chores.rest()
    assert chores.done[1:] == [f"y{number}" for number in range(MOST) if number != 5] + ["new"]


@pytest.mark.asyncio
async def test_what_fails_does_not_stand_in_the_way() -> None:
    chores = Chores()

    async def fails() -> int:
        await asyncio.sleep(0)
        raise OSError("broken")

    chores.errands.add("a", ("1",), fails)
    chores.errands.add("a", ("2",), chores.work("next"))
    with pytest.raises(OSError, match="broken"):
        await chores.rest()
    [(_, method, account)] = chores.later
    method(account)
    await chores.rest()
    assert chores.done == ["next"] and len(chores.errands) == 0


MESSAGES = Table(
    "messages",
    partition=("owner", "month"),
    cluster=("id", "peer"),
    columns={"owner": "int", "month": "int", "id": "blob", "stanza": "blob"},
    heap=True,
)
DAYS = Table("days", partition=("owner",), cluster=("peer", "day"), columns={"owner": "int", "day": "int"})
AT = 1_700_000_000_000_000
LATER = Pool().new_id(AT + 1_000_000_000_000)


class Bound:
    """A table of a store as plugins have it."""

    def __init__(self, store: Store, table: Table) -> None:
        self._store = store
        self._table = table
        self.asked = 0

    async def scan(self, *partition: Any, **about: Any) -> Any:
        self.asked += 1
        return await self._store.scan(self._table, partition, **about)

    async def scan_columns(self, *partition: Any, columns: Any, **about: Any) -> Any:
        self.asked += 1
        return await self._store.scan_columns(self._table, partition, columns, **about)


class Filled:
    """An archive of one owner."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pool = Pool()
        self.log, self.days = Bound(store, MESSAGES), Bound(store, DAYS)

    async def add(
        self, *names: str, at: int = AT, peer: str = "bob@b", sender: str = "bob@b/x"
    ) -> list[bytes]:
        rows, ids = [], []
        log = self._store.writer(MESSAGES, ("owner", "month", "id", "peer", "stanza"))
        day = self._store.writer(DAYS, ("owner", "peer", "day"))
        for number, name in enumerate(names):
            id = self._pool.new_id(at + number)
            stanza = f"<message from='{sender}' id='{name}'><body>x</body></message>".encode()
            rows.append(log.row(1, month_of(id), id, peer, stanza))
            ids.append(id)
        for start in range(0, len(rows), 10):
            await self._store.write(rows[start : start + 10])
        await self._store.write([day.row(1, peer, day_of(ids[0]))])
        return ids

    async def find(
        self,
        about: str,
        *,
        owner: int = 1,
        peer: str = "bob@b",
        author: str = "bob@b",
        before: bytes = LATER,
    ) -> tuple[bytes | None, int]:
        seeker = Seeker(self.log, self.days, self.days, owner)  # type: ignore[arg-type]
        found = await seeker.find(peer, author, about, before)
        return found.message.id if found.message else None, found.rows


@pytest_asyncio.fixture
async def filled() -> AsyncIterator[Filled]:
    store = new_store()
    await store.open([MESSAGES, DAYS])
    yield Filled(store)
    await store.close()


@pytest.mark.asyncio
async def test_the_newest_of_an_author_with_a_name_before_an_id(filled: Filled) -> None:
    one, other = await filled.add("m", "n"), await filled.add("m", at=AT + DAY)
    await filled.add("m", at=AT + 10, peer="carol@c", sender="carol@c/x")
    assert (await filled.find("m"))[0] == other[0]
    assert (await filled.find("m", before=other[0]))[0] == one[0]
    assert (await filled.find("n"))[0] == one[1]
    for about in ({"owner": 2}, {"author": "alice@a"}, {"peer": "carol@c"}):
        assert (await filled.find("m", **about))[0] is None
    assert (await filled.find("x"))[0] is None


@pytest.mark.asyncio
async def test_on_all_days_also_in_the_last_moment_of_one(filled: Filled) -> None:
    begin = AT // DAY * DAY
    for day in range(DAYS_AT_ONCE + 2):
        await filled.add("n", at=begin - day * DAY)
    [last] = await filled.add("m", at=begin - (DAYS_AT_ONCE - 1) * DAY - 1)
    assert (await filled.find("m"))[0] == last
    [first] = await filled.add("o", at=begin - (DAYS_AT_ONCE + 2) * DAY)
    assert (await filled.find("o"))[0] == first


@pytest.mark.asyncio
async def test_on_the_first_day_that_there_is_each_is_seen_once(filled: Filled) -> None:
    ids = [id for day in range(DAYS_AT_ONCE) for id in await filled.add("n", at=day * DAY + 1)]
    seeker = Seeker(filled.log, filled.days, filled.days, 1)  # type: ignore[arg-type]
    seen = [each.id async for piece in seeker.newest("bob@b", b"", LATER) for each in piece]
    assert seen == ids[::-1]


@pytest.mark.asyncio
async def test_it_ends_after_so_many(filled: Filled) -> None:
    [id, *_] = await filled.add("m", *["n"] * PAGE)
    assert await filled.find("m") == (id, PAGE + 1)
    await filled.add(*["n"] * MOST_SOUGHT, at=AT + DAY)
    filled.log.asked = 0
    found, rows = await filled.find("m")
    assert found is None and MOST_SOUGHT <= rows <= MOST_SOUGHT + PAGE
    assert filled.log.asked <= MOST_SOUGHT / PAGE + 2
