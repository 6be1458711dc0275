"""Software version (XEP-0092)."""

import pytest

from xmppd import __version__, ns
from xmppd.testing import World

QUERY = f"<query xmlns='{ns.VERSION}'/>"


@pytest.mark.asyncio
async def test_name_and_version_and_no_word_about_the_system() -> None:
    async with World(plugins=("version",), settings={"server": {"name": "Elsinore"}}) as world:
        alice = await world.login("alice")
        await alice.send(f"<iq type='get' id='v' to='localhost'>{QUERY}</iq>")
        await alice.expect(
            f"<iq type='result' id='v' from='localhost' to='{alice.jid}'><query xmlns='{ns.VERSION}'>"
            f"<name>Elsinore</name><version>{__version__}</version></query></iq>"
        )


@pytest.mark.asyncio
async def test_the_system_when_the_operator_says_so() -> None:
    async with World(plugins=("version",), plugin_config={"version": {"show_os": True}}) as world:
        alice = await world.login("alice")
        await alice.send(f"<iq type='get' id='v' to='localhost'>{QUERY}</iq>")
        answer = await alice.expect(
            f"<iq type='result' id='v' from='localhost' to='{alice.jid}'><query xmlns='{ns.VERSION}'>"
            "<name>*</name><version>*</version><os>*</os></query></iq>"
        )
        assert "Linux" in (answer.findtext(f".//{{{ns.VERSION}}}os") or "")
