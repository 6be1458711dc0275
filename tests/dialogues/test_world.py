"""The world itself: how long it waits for what is under way."""

import time
from types import SimpleNamespace

import pytest

from xmppd.testing import World, world

pytestmark = pytest.mark.asyncio


class Slow:
    """A store that does what it was asked, one thing in so many seconds, or comes to a stand at some."""

    def __init__(self, store, each, stand=0):
        self._store = store
        self._end = time.monotonic() + each * 10
        self._each = each
        self._stand = stand

    @property
    def stats(self):
        left = max(0, round((self._end - time.monotonic()) / self._each))
        return SimpleNamespace(pending=max(left, self._stand), in_flight=0)

    def __getattr__(self, name):
        return getattr(self._store, name)


async def test_a_slow_store_is_waited_for_as_long_as_it_goes_on(monkeypatch):
    async with World() as at_rest:
        monkeypatch.setattr(world, "STORED_SECONDS", 0.5)
        store = at_rest.app.store
        at_rest.app.store = slow = Slow(store, 0.1)
        await at_rest.settle()
        assert slow.stats.pending == 0
        at_rest.app.store = Slow(store, 0.001, stand=1)
        await at_rest.settle()  # and not for ever where it does not
        at_rest.app.store = store
