"""Web hooks: what receivers are told, and what they may answer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from receiver import Receiver, is_signed

from xmppd.testing import World

LOCAL = {"webhooks": {"allowed": ["127.0.0.0/8"]}}


@asynccontextmanager
async def told(
    receiver: Receiver, *events: str, config: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[World, str]]:
    """A server whose web hook leads to the receiver, and the key that signs."""
    settings = {"webhooks": {**LOCAL["webhooks"], **(config or {})}}
    async with World(plugins=("webhooks", "blocking"), plugin_config=settings) as world:
        arguments = {"name": "game", "url": receiver.url, "event": [*events], **options}
        made = await world.app.commands.call("webhook add", arguments)
        yield world, made["secret"]


@pytest.mark.asyncio
async def test_an_account_that_was_made_is_told_with_a_signature() -> None:
    async with Receiver() as receiver, told(receiver, "account.*") as (world, secret):
        await world.app.accounts.create("zoe@localhost", "secret")
        await receiver.until(lambda: bool(receiver.events))
        event = receiver.events[0]
        assert (event["kind"], event["account"], event["data"]) == ("account.created", "zoe@localhost", {})
        assert is_signed(*receiver.requests[0], secret)
        assert not is_signed(*receiver.requests[0], "another")
