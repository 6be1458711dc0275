"""Entity time (XEP-0202) in the formats of XEP-0082."""

import time
from collections.abc import Iterator

import pytest

from xmppd import ns
from xmppd.testing import World


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("zone", "offset"), [("UTC0", "+00:00"), ("AAA-05:30", "+05:30"), ("BBB+06", "-06:00")], indirect=["zone"]
)
async def test_the_clock_and_the_offset(zone: None, offset: str) -> None:
    async with World(plugins=("time",)) as world:
        alice = await world.login("alice")
        await world.advance(60.5)
        await alice.send(f"<iq type='get' id='t' to='localhost'><time xmlns='{ns.TIME}'/></iq>")
        await alice.expect(
            f"<iq type='result' id='t' from='localhost' to='{alice.jid}'><time xmlns='{ns.TIME}'>"
            f"<tzo>{offset}</tzo><utc>2023-11-14T22:14:20Z</utc></time></iq>"
        )
