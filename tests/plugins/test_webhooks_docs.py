"""What docs/webhooks.md shows works."""

import re
from pathlib import Path
from typing import Any

import pytest
from patience import until
from receiver import Receiver

from xmppd.testing import World

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")


def sample() -> Any:
    """The function that verifies."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/webhooks.md", "exec"), names)
    return names["verified"]


@pytest.mark.asyncio
async def test_the_sample_verifies_what_the_server_sends() -> None:
    config = {"webhooks": {"allowed": ["127.0.0.0/8"]}}
    async with Receiver() as receiver, World(plugins=("webhooks",), plugin_config=config) as world:
        arguments = {"name": "game", "url": receiver.url, "event": ["account.*"]}
        secret = (await world.app.commands.call("webhook add", arguments))["secret"]
        await world.app.accounts.create("zoe@localhost", "secret")
        await until(lambda: bool(receiver.requests), lambda: world.advance(0.25))
        headers, body = receiver.requests[0]
        verified, now = sample(), world.clock.now()
        assert [event["account"] for event in verified(headers, body, secret, now)] == ["zoe@localhost"]
        for wrong in (
            lambda: verified(headers, body, "whsec_other", now),
            lambda: verified(headers, body + b" ", secret, now),
            lambda: verified({**headers, "xmppd-delivery": "0"}, body, secret, now),
            lambda: verified(headers, body, secret, now + 301),
        ):
            with pytest.raises(ValueError, match="this is"):
                wrong()
