"""slixmpp in the dialect of `riot_profile`, over TLS at once: no library that speaks it was found."""

import time
from types import SimpleNamespace
from xml.etree.ElementTree import fromstring

import pytest
from gametokens import issuer, minted
from slixmpp.util.sasl.client import Mech, sasl_mech

ROSTER = "jabber:iq:riotgames:roster"
SETTINGS = {
    "plugins": {
        "enabled": ["disco", "ping", "game_login", "players", "friends", "riot_profile"],
        "config": {"game_login": {"issuers": [issuer()]}},
    }
}


@sasl_mech(1)
class RiotToken(Mech):
    """One token as the text of `<auth/>`, in base64 as slixmpp writes all."""

    name = "X-Riot-RSO"
    required_credentials = frozenset({"password"})

    def process(self, challenge: bytes = b"") -> bytes:
        return bytes(self.credentials["password"])


async def roster(one, payload, kind="get"):
    iq = one.xmpp.make_iq(itype=kind)
    iq.append(fromstring(f"<query xmlns='{ROSTER}'>{payload}</query>"))
    answer = await iq.send(timeout=20)
    return {it.get("jid"): it.get("subscription") for it in answer.xml.iter(f"{{{ROSTER}}}item")}


@pytest.mark.asyncio
async def test_old_and_new_clients_of_the_dialect_befriend_each_other(module_server, client):
    account = module_server.account("teemo")
    older = account._replace(password=f"AIR_{account.password}")
    teemo = client(older, "xiff", direct_tls=True, server=module_server)
    teemo.use_mechanism("PLAIN")
    now = int(time.time())
    token = SimpleNamespace(jid="lux@localhost", password=minted("lux", iat=now, exp=now + 600))
    lux = client(token, "RC-1234", direct_tls=True, server=module_server)
    lux.use_mechanism(RiotToken.name)
    for one in (teemo, lux):
        one.watched |= {ROSTER}
        await one.login()
        assert await roster(one, "") == {}
    assert lux.mechanism == RiotToken.name
    await roster(lux, f"<item subscription='pending_out' jid='{teemo.bare}'/>", "set")
    [asked] = await teemo.pushed(f"{{{ROSTER}}}query")
    assert (asked.get("puuid"), asked.get("subscription")) == ("lux", "pending_in")
    await roster(teemo, "<item subscription='pending_out' puuid='lux'/>", "set")
    await lux.presence(teemo)
    await teemo.presence(lux)
    assert await roster(lux, "") == {teemo.bare: "both"}
    assert await roster(teemo, "") == {lux.bare: "both"}
