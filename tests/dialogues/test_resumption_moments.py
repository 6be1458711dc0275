"""What comes for a session at the very moment in which another node is given it."""

from typing import Any

import pytest
from managing import bodies, count, managed, ready, resume
from several import several

from xmppd import ns
from xmppd.core import managed as core
from xmppd.core.handover import Handover
from xmppd.core.managed import Managed
from xmppd.net.c2s.negotiation import management
from xmppd.testing import World

pytestmark = [pytest.mark.asyncio, pytest.mark.parametrize("is_late", [True, False])]


def chat(to: str, body: str) -> str:
    return f"<message to='{to}' type='chat'><body>{body}</body></message>"


async def test_what_comes_when_the_last_that_she_sent_is_done_goes_with_her(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    async with World(plugins=("offline",), nodes=2, settings=several(redis_url)) as world:
        alice, id = await managed(world, "alice", "r", node=0)
        bob = await world.login("bob", node=0)
        session, finished = alice.session, Managed._finished
        session.managed._pending = [session.managed.received + 1]
        session.managed.received += 1

        def then(it: Managed, number: int) -> None:
            if is_late:
                finished(it, number)
            session.send(f"<message from='{bob.jid}'><body>1</body></message>".encode())
            if not is_late:
                finished(it, number)

        await bob.send(chat(alice.jid, "0"))
        got = await alice.receive_all()
        await alice.drop()
        again = await ready(world, "alice", node=1)
        again.write(f"<resume xmlns='{ns.SM}' previd='{id}' h='{count(got)}'/>")
        await world.settle()
        then(session.managed, session.managed.received)
        await world.settle()
        stanzas = await again.receive_all()
        assert stanzas[0].get("h") == "1" and core.FINISH_SECONDS > 0
        assert bodies(stanzas) == ["1"]


async def test_what_comes_while_she_is_fetched_is_not_lost_if_she_breaks_off(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    async with World(plugins=("offline",), nodes=2, settings=several(redis_url)) as world:
        alice, id = await managed(world, "alice", "r", node=0)
        bob = await world.login("bob", node=1)
        await bob.send(chat(alice.jid, "1"))
        await alice.receive_all()
        await alice.drop()
        again = await ready(world, "alice", node=1)
        take = Handover.take

        async def taken(it: Handover, *about: Any) -> Managed | None:
            found = await take(it, *about)
            assert found is not None
            found.session.send(
                f"<message from='{bob.jid}' to='{alice.jid}'><body>2</body></message>".encode()
            )
            if is_late:
                monkeypatch.setattr(management, "has_gone", lambda stream: True)
                again.transport.close()
            return found

        monkeypatch.setattr(Handover, "take", taken)
        again.write(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")
        await world.settle()
        if is_late:
            monkeypatch.undo()
            await world.advance(15)
            last = await world.login("alice", node=1)
            await world.settle()
            assert sorted(text for text in "12" if f"<body>{text}</body>".encode() in last.raw) == ["1", "2"]
            assert not any(app.resumption._by_id for app in world.apps)
        else:
            assert bodies(await again.receive_all()) == ["1", "2"]


async def test_what_was_sought_is_sought_by_the_session_wherever_it_goes(
    redis_url: str, is_late: bool
) -> None:
    async with World(plugins=("offline",), nodes=2, settings=several(redis_url)) as world:
        alice, id = await managed(world, "alice", "r", node=0)
        alice.session.login.sought = "before"
        await alice.drop()
        again = await resume(world, alice, id, node=int(is_late))
        assert again.session.login.sought == "before"
