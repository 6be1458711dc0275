"""Archives are written to a file and taken from one, in parts, and each row is the same afterwards."""

import json
from pathlib import Path
from typing import Any

import pytest
from archives import DAY, chat, find, put, world

from plugins.archive.ids import at_of, stamp_of, to_text
from plugins.archive.moving import SLICE, Portion, _slices
from xmppd import ns
from xmppd.errors import CommandError, StoreTimeout
from xmppd.testing import World

pytestmark = pytest.mark.asyncio

NOTHING = {"there already": 0, "too old": 0, "refused": 0}


async def run(w: World, name: str, **arguments: Any) -> dict[str, int]:
    """A command with all its pages; the counts."""
    counts: dict[str, int] = {}
    for _ in range(1000):
        page = await w.app.commands.call(f"archive {name}", arguments)
        for key, value in page["counts"].items():
            counts[key] = counts.get(key, 0) + value
        if page["after"] is None:
            return counts
        arguments["after"] = page["after"]
    raise AssertionError("there is no end")


async def rows_of(w: World, *names: str) -> dict[str, list[Any]]:
    """All that archives have, by account, without the numbers of their owners."""
    plugin = w.plugin("archive")
    owners = {row["uid"]: row["account"] async for row in plugin.owners.everything()}
    found: dict[str, list[Any]] = {}
    for table in (plugin.messages, plugin.days, plugin.months):
        async for row in table.everything():
            account = owners[row.pop("owner")]
            found.setdefault(account, []).append(sorted(row.items()))
    return {name: sorted(rows, key=repr) for name, rows in found.items() if not names or name in names}


async def said(w: World, count: int) -> None:
    """So many messages by alice and by bob, and older ones of alice."""
    alice, bob = await w.login("alice"), await w.login("bob")
    for place in range(count):
        await chat(alice, "bob@localhost", f"one {place} \N{PER MILLE SIGN} &lt;&amp;>")
        await chat(bob, "carol@localhost", f"two {place}")
    await w.settle()
    row = await w.plugin("archive").owners.get("alice@localhost")
    await put(w, row["uid"], *(40 * place + 1 for place in range(count)))


def line(**more: Any) -> str:
    row = {
        "account": "alice@localhost",
        "id": "foreign-1",
        "at": "2020-01-02T03:04:05Z",
        "stanza": "<message from='x@y/z' to='alice@localhost'><body>hi</body></message>",
        **more,
    }
    return json.dumps({key: value for key, value in row.items() if value is not None}) + "\n"


@pytest.mark.parametrize("portion", [Portion(), Portion(1, 1, 900)])
async def test_there_and_back_each_row_is_the_same(portion: Portion, tmp_path: Path) -> None:
    file = str(tmp_path / "archives")
    async with world() as w:
        w.plugin("archive").portion = portion
        await said(w, 8)
        assert await run(w, "export", file=file) == {"messages": 40, "archives": 3}
        before = await rows_of(w)
    async with world() as w:
        w.plugin("archive").portion = portion
        await w.advance(60)
        assert await run(w, "import", file=file, dry_run=True) == {"messages": 40, **NOTHING}
        assert [1 async for _ in w.plugin("archive").owners.everything()] == []
        assert await run(w, "import", file=file) == {"messages": 40, **NOTHING}
        assert await rows_of(w) == before
        again = await run(w, "import", file=file)
        assert again == {"messages": 0, **NOTHING, "there already": 40}
        assert await rows_of(w) == before
        alice = await w.login("alice")
        assert len((await find(alice)).texts) == 16


async def test_large_messages_become_lines_in_several_turns() -> None:
    rows = [(bytes([place]), "", b"x" * size) for place, size in enumerate([10, SLICE, 10, SLICE // 2] * 2)]
    rows += [(b"", "", b"small")] * 250
    slices = list(_slices(rows))
    assert [row for some in slices for row in some] == rows
    assert [len(some) for some in slices] == [2, 4, 100, 100, 52]


async def test_one_archive_alone_and_nothing_is_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "archives"
    async with world() as w:
        await said(w, 3)
        assert await run(w, "export", file=str(file), account="bob@localhost") == {
            "messages": 6,
            "archives": 1,
        }
        assert {json.loads(each)["account"] for each in file.read_text().splitlines()} == {"bob@localhost"}
        assert file.stat().st_mode & 0o777 == 0o600
        for name in (str(file), "relative"):
            with pytest.raises(CommandError):
                await run(w, "export", file=name)
        with pytest.raises(CommandError):
            await run(w, "import", file=str(tmp_path / "not there"))
        with pytest.raises(CommandError):
            await run(w, "import", file=str(file), after="nonsense")


async def test_an_export_that_was_interrupted_goes_on_where_it_was(tmp_path: Path) -> None:
    async with world() as w:
        w.plugin("archive").portion = Portion(1, 1)
        await said(w, 3)
        file = tmp_path / "archives"
        page = await w.app.commands.call("archive export", {"file": str(file)})
        whole = await run(w, "export", file=str(tmp_path / "whole"))
        with file.open("a") as behind:
            behind.write("what an interrupted call left")
        rest = await run(w, "export", file=str(file), after=page["after"])
        assert page["counts"]["messages"] + rest["messages"] == whole["messages"]
        assert file.read_text() == (tmp_path / "whole").read_text()


async def test_messages_of_other_servers_come_in_their_order_with_ids_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "in"
    bodies = [f"<message from='x@y/z'><body>{place}</body></message>" for place in range(5)]
    some = [
        line(id=f"{place}", at=f"2020-01-02T03:04:05.{place:06}Z", stanza=stanza)
        for place, stanza in enumerate(bodies)
    ]
    some.append(line(id="1577934246000000", at="2020-01-02T03:04:06Z"))
    file.write_text("".join(some))
    async with world() as w:
        assert (await run(w, "import", file=str(file)))["messages"] == 6
        alice = await w.login("alice")
        found = await find(alice)
        assert found.texts == ["0", "1", "2", "3", "4", "hi"]
        rows = await rows_of(w)
        assert (await run(w, "import", file=str(file)))["there already"] == 6
        assert await rows_of(w) == rows
        ids = [dict(row)["id"] for row in rows["alice@localhost"] if "id" in dict(row)]
        assert [stamp_of(id) for id in sorted(ids)][-1] == "2020-01-02T03:04:06.000Z"
        assert at_of(sorted(ids)[1]) - at_of(min(ids)) == 1


async def test_the_other_end_is_found_in_the_message_where_the_file_does_not_say(tmp_path: Path) -> None:
    sent = "<message from='alice@localhost/a' to='Carol@localhost/x'><body>hi</body></message>"
    own = "<message><body>note</body></message>"
    (tmp_path / "in").write_text(line() + line(id="2", stanza=sent) + line(id="3", stanza=own))
    async with world() as w:
        await run(w, "import", file=str(tmp_path / "in"))
        rows = await rows_of(w)
        peers = {dict(row)["peer"] for row in rows["alice@localhost"] if "peer" in dict(row)}
        assert peers == {"x@y", "carol@localhost", "alice@localhost"}


@pytest.mark.parametrize(
    "refused",
    [
        "{\n",
        "[]\n",
        line(account="nobody@localhost"),
        line(account="alice@elsewhere.test"),
        line(account="@"),
        line(id=None),
        line(at="now"),
        line(at="2999-01-01T00:00:00Z"),
        line(at="0001-01-01T00:00:00+23:00"),
        line(stanza="<message>"),
        line(stanza="<iq/>"),
        line(stanza="<messages/>"),
        line(stanza="<!DOCTYPE x><message/>"),
        line(stanza="<message/><message/>"),
        line(stanza="<message/><iq/>"),
        line(stanza="<message/><iq"),
        line(stanza="<message/>behind"),
        line(stanza="before<message/>"),
        line(stanza=""),
        line(stanza="<message/></stream:stream>"),
        line(stanza="<message/></x><x>"),
        line(stanza="<message><!-- hi --></message>"),
        line(stanza="<message><?hi there?></message>"),
        line(stanza="<message xmlns=''/>"),
        line(stanza="<message xmlns='jabber:server'/>"),
        line(stanza="<message><a:b/></message>"),
        line(stanza="<message>" + "<a>" * 500 + "</a>" * 500 + "</message>"),
        "[" * 100_000 + "\n",
        line(**{"with": "a@b@c"}),
    ],
)
async def test_what_is_no_message_of_an_account_here_is_refused_and_told(
    refused: str, tmp_path: Path
) -> None:
    (tmp_path / "in").write_text(refused + line())
    async with world() as w:
        page = await w.app.commands.call("archive import", {"file": str(tmp_path / "in")})
        assert page["counts"] == {"messages": 1, **NOTHING, "refused": 1}
        assert len(page["rows"]) == 1 and page["exit_code"] == 1


@pytest.mark.parametrize(
    "stanza",
    [
        "<message xmlns='jabber:client' from='x@y/z'><body>hi</body></message>",
        """<message xmlns="jabber:client" from="x@y/z" xml:lang="en"><body>hi</body></message>""",
        "<message xmlns:a='urn:a' from='x@y/z' a:b='c'><body>hi</body><a:b/></message>",
        "<c:message xmlns:c='jabber:client' from='x@y/z'><c:body>hi</c:body></c:message>",
        "<message\txmlns='jabber:client'\nfrom='x@y/z' ><body><![CDATA[hi]]></body></message> ",
        "<message from='x@y/z'><body>hi</body><stream:a/></message>",
    ],
)
async def test_however_a_message_is_written_clients_can_read_it(stanza: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text(line(stanza=stanza))
    async with World(plugins=("archive", "offline")) as w:
        counts = await run(w, "import", file=str(tmp_path / "in"))
        assert counts == {"messages": 1, **NOTHING}
        alice = await w.login("alice")
        found = await find(alice)
        assert found.texts == ["hi"] and found.messages[0].get("from") == "x@y/z"
        listed = await alice.ask("get", f"<query xmlns='{ns.CONVERSATIONS}'/>")
        assert [body.text for body in listed.iter(f"{{{ns.CLIENT}}}body")] == ["hi"]
        [row] = [row async for row in w.plugin("archive").messages.everything()]
        assert row["stanza"].startswith(b"<message") and b" xmlns=" not in row["stanza"].partition(b">")[0]


async def test_what_is_too_old_is_not_taken_and_the_rest_lives_as_long_as_it_would_have(
    tmp_path: Path,
) -> None:
    async with world(plugin_config={"archive": {"days": 10}}) as w:
        now = w.plugin("archive").now()
        texts = [
            line(id=str(days), at=stamp_of(int((now - days * DAY) * 1e6).to_bytes(8, "big") + b"1234"))
            for days in (11, 9)
        ]
        (tmp_path / "in").write_text("".join(texts))
        lives: list[float | None] = []
        write = w.plugin("archive").messages.write

        def noted(some: Any, *, ttl: float | None = None) -> Any:
            lives.append(ttl)
            return write(some, ttl=ttl)

        w.plugin("archive").messages.write = noted
        counts = await run(w, "import", file=str(tmp_path / "in"))
        assert counts == {"messages": 1, **NOTHING, "too old": 1}
        assert lives == [None, 12 * DAY, DAY], "of the month, of the day, of the message"


async def test_a_repeat_makes_what_messages_are_found_by_where_that_is_missing(tmp_path: Path) -> None:
    file = str(tmp_path / "archives")
    async with world() as w:
        plugin = w.plugin("archive")
        await said(w, 3)
        await run(w, "export", file=file)
        before = await rows_of(w)
        uids = [row["uid"] async for row in plugin.owners.everything()]
        for uid in uids:
            await plugin.months.delete(uid)
            await plugin.days.delete(uid)
        assert await run(w, "import", file=file, dry_run=True) == {
            "messages": 0,
            **NOTHING,
            "there already": 15,
        }
        assert await rows_of(w) != before
        assert await run(w, "import", file=file) == {"messages": 0, **NOTHING, "there already": 15}
        assert await rows_of(w) == before


async def test_what_messages_are_found_by_is_there_before_they_are(tmp_path: Path) -> None:
    (tmp_path / "in").write_text(line())
    async with world() as w:
        messages = w.plugin("archive").messages
        write, written = messages.write, list[int]()

        def failing(some: Any, *, ttl: float | None = None) -> Any:
            written.append(len(some))
            if len(written) > 1:
                raise StoreTimeout("who knows")
            return write(some, ttl=ttl)

        messages.write = failing
        with pytest.raises(CommandError):
            await run(w, "import", file=str(tmp_path / "in"))
        assert len((await rows_of(w))["alice@localhost"]) == 2


async def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("x" * 600)
    async with world() as w:
        w.plugin("archive").portion = Portion(size=500)
        with pytest.raises(CommandError):
            await run(w, "import", file=str(tmp_path / "in"))


async def test_ids_of_ours_are_kept(tmp_path: Path) -> None:
    async with world() as w:
        await said(w, 1)
        id = to_text(next(iter([row["id"] async for row in w.plugin("archive").messages.everything()])))
        await run(w, "export", file=str(tmp_path / "out"))
        assert id in (tmp_path / "out").read_text()
