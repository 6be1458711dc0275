"""Keys that an account lacks, made when somebody has given its password (see `Credentials.missing`)."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from xmppd.core.credentials import ACCOUNT, credentials_of, identity_of
from xmppd.errors import StoreError
from xmppd.store.table import Row, Store
from xmppd.stream.scram import Credentials

MOST_COMPLETIONS = 50
"""So many accounts may be waiting for keys: more log in without, and get theirs at another login."""

_log = logging.getLogger(__name__)


class Completion:
    """Derives and writes what is missing, in the background and only if the row is the same still: so it
    undoes no new password and no removal. Sessions stay, for what they logged in with does.

    `derive` gives the columns of an account for a prepared password and some hashes, `changed` is told of an
    account whose row was written, or may have been.
    """

    def __init__(
        self,
        store: Store,
        hashes: Sequence[str],
        derive: Callable[[str, str, Sequence[str]], Awaitable[Mapping[str, str]]],
        changed: Callable[[str], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object] | None,
    ) -> None:
        self._store = store
        self._hashes = hashes
        self._derive = derive
        self._changed = changed
        self._spawn = spawn
        self._under_way: set[str] = set()

    def begin(self, account: str, password: str, found: Credentials) -> None:
        """Complete an account, unless that is being done; without `spawn` nothing is."""
        if self._spawn is None or account in self._under_way or len(self._under_way) >= MOST_COMPLETIONS:
            return
        self._under_way.add(account)
        self._spawn(self._complete(account, password, found))

    async def _complete(self, account: str, password: str, found: Credentials) -> None:
        try:
            await self._write(account, password, found)
        except StoreError as error:
            _log.warning("keys-not-completed", extra={"jid": account, "problem": str(error)})
        finally:
            self._under_way.discard(account)

    async def _write(self, account: str, password: str, found: Credentials) -> None:
        row = await self._store.get(ACCOUNT, (account,))
        now = None if row is None else credentials_of(row, self._hashes)
        if row is None or now is None or now.keys != found.keys or now.tenure != found.tenure:
            return
        columns = await self._derive(account, password, now.missing)
        new: Row = {"account": account, "changed": secrets.randbits(62), **columns}
        try:
            await self._store.put_if(ACCOUNT, new, identity_of(row))
        finally:
            self._changed(account)
