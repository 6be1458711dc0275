"""What tests of rosters share."""

from collections.abc import AsyncIterator

import pytest_asyncio
import stores

from xmppd.core.roster.item import ROSTER
from xmppd.store.table import Store


@pytest_asyncio.fixture
async def store() -> AsyncIterator[Store]:
    """One of rosters."""
    store = stores.new_store()
    await store.open([ROSTER])
    yield store
    await store.close()
