"""What a client sends in one go is archived in its order, whatever has to be found out of some of it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from archives import find, world
from managing import bodies, managed, resume
from patience import rounds
from several import several

from xmppd import ns
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

NODES = pytest.mark.parametrize("nodes", [1, 2])


def message(to: str, text: str) -> str:
    return f"<message to='{to}@localhost' type='chat' id='{text}'><body>{text}</body></message>"


async def said(w: World, client: Client, *messages: str) -> None:
    await client.send("".join(messages))
    await w.settle()


@NODES
async def test_one_to_somebody_who_is_not_known_yet_holds_up_nobody(redis_url: str, nodes: int) -> None:
    async with world("offline", nodes=nodes, settings=several(redis_url)) as w:
        alice, bob, carol = [await w.login(name, node=0) for name in ("alice", "bob", "carol")]
        await said(w, alice, message("bob", "0"))
        await said(w, alice, message("bob", "1"), message("carol", "2"), message("bob", "3"))
        assert bodies(await bob.receive_all()) == ["0", "1", "3"]
        assert bodies(await carol.receive_all()) == ["2"]
        assert (await find(alice)).texts == ["0", "1", "2", "3"]


@NODES
async def test_all_comes_in_its_order_whoever_is_known(redis_url: str, nodes: int) -> None:
    names = [f"user{number}" for number in range(20)]
    async with world("offline", nodes=nodes, accounts=("alice", *names), settings=several(redis_url)) as w:
        alice, rnd = await w.login("alice", node=0), random.Random(5)
        sent = [(rnd.choice(names), str(number)) for number in range(60)]
        await said(w, alice, *(message(name, text) for name, text in sent))
        assert (
            await find(alice, "<set xmlns='http://jabber.org/protocol/rsm'><max>100</max></set>")
        ).texts == [text for _, text in sent]


async def test_a_session_that_is_resumed_has_one_line(redis_url: str) -> None:
    async with world("offline") as w:
        alice, id = await managed(w, "alice", "r")
        bob = await w.login("bob")
        await said(w, alice, message("bob", "0"))
        await alice.drop()
        alice = await resume(w, alice, id)
        assert alice.session.line is None
        await said(w, alice, message("bob", "1"), message("carol", "2"), message("bob", "3"))
        assert bodies(await bob.receive_all()) == ["0", "1", "3"]


@NODES
@pytest.mark.parametrize(
    "between",
    [
        f"<message to='bob@localhost' type='chat' id='x'><composing xmlns='{ns.CHAT_STATES}'/></message>",
        "<message to='bob@localhost' type='headline'><body>x</body></message>",
        f"<message to='bob@localhost'><body>x</body><no-permanent-store xmlns='{ns.HINTS}'/></message>",
    ],
)
async def test_behind_one_of_which_nothing_is_written_all_are_under_way_at_once(
    redis_url: str, nodes: int, between: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world("offline", nodes=nodes, settings=several(redis_url)) as w:
        alice, bob = await w.login("alice", node=0), await w.login("bob", node=nodes - 1)
        await said(w, alice, message("bob", "0"))
        archive, goes_on, begun = w.plugin("archive", 0), asyncio.Event(), []
        write = archive._file

        def held(*about: Any) -> None:
            begun.append(about[0])

            async def later() -> None:
                await goes_on.wait()
                write(*about)

            archive.server.spawn(later())

        monkeypatch.setattr(archive, "_file", held)
        alice.write("".join([message("bob", "1"), between, *(message("bob", str(n)) for n in range(2, 10))]))
        async for _ in rounds(0.001):
            for client in w.clients:
                client.pump()
            if len(begun) == 9:
                break
        assert len(begun) == 9
        goes_on.set()
        await w.settle()
        got = bodies(await bob.receive_all())
        assert [text for text in got if text not in ("", "x")] == [str(number) for number in range(10)]
        assert got[2] in ("", "x"), "it kept its place"


@NODES
async def test_behind_one_of_which_something_was_found_out_all_are_under_way_at_once(
    redis_url: str, nodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world("offline", nodes=nodes, settings=several(redis_url)) as w:
        alice, bob = await w.login("alice", node=0), await w.login("bob", "r", node=nodes - 1)
        await said(w, alice, message("bob", "0"))
        archive, first, goes_on, begun = w.plugin("archive", 0), asyncio.Event(), asyncio.Event(), []
        write = archive._file

        def held(entry: Any, *about: Any) -> None:
            begun.append(entry)
            event = first if len(begun) == 1 else goes_on

            async def later() -> None:
                await event.wait()
                write(entry, *about)

            archive.server.spawn(later())

        async def until_begun(count: int) -> None:
            async for _ in rounds(0.001):
                for client in w.clients:
                    client.pump()
                if len(begun) == count:
                    break

        monkeypatch.setattr(archive, "_file", held)
        to_nobody = "<message to='bob@localhost/gone' type='normal'><body>gone</body></message>"
        alice.write(
            "".join([message("bob", "1"), to_nobody, *(message("bob", str(n)) for n in range(2, 10))])
        )
        await until_begun(1)
        first.set()
        await until_begun(9)
        assert len(begun) == 9
        goes_on.set()
        await w.settle()
        assert bodies(await bob.receive_all()) == [*map(str, range(10))]


async def test_one_to_who_may_be_there_later_is_asked_again_in_its_turn() -> None:
    """It is to be in the archives if it is taken then; those behind it must not have smaller ids."""
    async with world("offline") as w:
        alice, bob = await w.login("alice", node=0), await w.login("bob", "r", node=0)
        await said(w, alice, message("bob", "0"))
        to_nobody = "<message to='bob@localhost/gone' type='normal'><body>gone</body></message>"
        await said(w, alice, message("bob", "1"), to_nobody, message("bob", "2"))
        assert bodies(await bob.receive_all()) == ["0", "1", "2"]
        assert (await find(alice)).texts == ["0", "1", "2"]
