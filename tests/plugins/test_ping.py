"""Ping (XEP-0199)."""

import pytest

from xmppd import ns
from xmppd.testing import World

PING = f"<ping xmlns='{ns.PING}'/>"


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["", "localhost", "alice@localhost", "LOCALHOST", "Alice@localhost"])
async def test_the_server_answers_for_itself_and_for_the_own_account(to: str) -> None:
    async with World(plugins=("ping",)) as world:
        alice = await world.login("alice")
        address = f" to='{to}'" if to else ""
        await alice.send(f"<iq type='get' id='p1'{address}>{PING}</iq>")
        source = f" from='{to}'" if to else ""
        await alice.expect(f"<iq type='result' id='p1' to='{alice.jid}'{source}/>")


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["bob@localhost", "nobody@localhost", "bob@localhost/gone"])
async def test_others_are_not_answered_for(to: str) -> None:
    async with World(plugins=("ping",)) as world:
        alice = await world.login("alice")
        await alice.send(f"<iq type='get' id='p1' to='{to}'>{PING}</iq>")
        await alice.expect(
            f"<iq type='error' id='p1' from='{to}' to='{alice.jid}'>"
            f"<error type='cancel'><service-unavailable xmlns='{ns.STANZA_ERRORS}'/></error></iq>"
        )


@pytest.mark.asyncio
async def test_it_is_advertised() -> None:
    async with World(plugins=("disco", "ping")) as world:
        alice = await world.login("alice")
        answer = await alice.ask("get", f"<query xmlns='{ns.DISCO_INFO}'/>", to="localhost")
        assert ns.PING in {feature.get("var") for feature in answer.iter(f"{{{ns.DISCO_INFO}}}feature")}
