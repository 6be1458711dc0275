"""What was asked with an Idempotency-Key is done once, and answered again: on all nodes, for a day."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from xmppd.errors import StoreError
from xmppd.parts.http import HttpError, HttpResponse
from xmppd.store.person import Person
from xmppd.store.table import Row, Store, Table

log = logging.getLogger(__name__)

DAY: Final = 86_400.0
API_REPLAYS: Final = Table(
    "api_replays",
    partition=("key",),
    columns={
        "asked": "blob",
        "claim": "text",
        "until": "timestamp",
        "status": "int",
        "is_kept": "bool",
        "body": "blob",
        "type": "text",
        "headers": "text",
    },
    ttl=DAY,
    person=Person(
        mentions={"body": "masked", "headers": "masked"}, secret={"key": "who asked, with which key"}
    ),
)
FORM: Final = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
"""Of a key."""
MARGIN_SECONDS: Final = 10.0
"""By how much a claim outlasts the request that it is for: clocks of nodes differ."""
KEPT_BYTES: Final = 262_144
"""The longest body that is kept."""
TRIES: Final = 3


class Replays:
    """Claims keys in the store before anything is done, and keeps the answers."""

    def __init__(
        self, store: Store, spawn: Callable[[Coroutine[Any, Any, None]], object], now: Callable[[], float]
    ) -> None:
        self._store = store
        self._spawn = spawn
        self._now = now

    async def once(
        self,
        caller: str,
        key: str,
        asked: bytes,
        work: Callable[[], Awaitable[HttpResponse]],
        seconds: float,
    ) -> HttpResponse:
        """The answer of `work`, which takes so many seconds at most, or what it was when this caller asked
        the same with this key. HttpError: the key is wrong (400), was for something else (422), or that is
        under way (409). StoreError.
        """
        key = key.strip().removeprefix('"').removesuffix('"')
        if not FORM.fullmatch(key):
            detail = "An Idempotency-Key has 1 to 255 visible characters of ASCII."
            raise HttpError(400, detail, rule="idempotency-key")
        row = {
            "key": hashlib.sha256(f"{caller}\0{key}".encode()).hexdigest(),
            "asked": hmac.digest(key.encode(), asked, "sha256"),
            "claim": secrets.token_hex(8),
            "until": self._now() + seconds + MARGIN_SECONDS,
        }
        former = await self._claim(row)
        if former is not None:
            return _again(former)
        try:
            answer = await work()
        except BaseException:
            self._spawn(self._release(row))
            raise
        if answer.status >= 500:
            await self._release(row)
        else:
            await self._keep(row, answer)
        return answer

    async def _claim(self, row: Row) -> Row | None:
        """Claim a key; the row of who had it and is done."""
        for _ in range(TRIES):
            former = await self._store.get(API_REPLAYS, (row["key"],))
            if former is not None:
                if not hmac.compare_digest(former["asked"], row["asked"]):
                    detail = "This Idempotency-Key was used for another request."
                    raise HttpError(422, detail, rule="idempotency-key-reused")
                if former["status"] is not None:
                    return former
                if self._now() < former["until"]:
                    break
            expect = None if former is None else {"claim": former["claim"]}
            if await self._store.put_if(API_REPLAYS, row, expect, ttl=DAY):
                return None
        detail = "The request with this Idempotency-Key is under way."
        raise HttpError(409, detail, headers={"Retry-After": "1"}, rule="under-way")

    async def _keep(self, row: Row, answer: HttpResponse) -> None:
        is_kept = "no-store" not in answer.headers.get("Cache-Control", "")
        is_kept = is_kept and len(answer.body) <= KEPT_BYTES
        done = {
            **row,
            "status": answer.status,
            "is_kept": is_kept,
            "body": answer.body if is_kept else b"",
            "type": answer.content_type,
            "headers": json.dumps(dict(answer.headers) if is_kept else {}),
        }
        try:
            await self._store.put_if(API_REPLAYS, done, {"claim": row["claim"]}, ttl=DAY)
        except StoreError as error:
            log.warning("answer-not-kept", extra={"status": answer.status, "error": str(error)})

    async def _release(self, row: Row) -> None:
        """Nothing was done, or nobody knows: it may be tried again."""
        try:
            await self._store.delete_if(API_REPLAYS, (row["key"],), {"claim": row["claim"]})
        except StoreError as error:
            log.warning("answer-not-kept", extra={"status": 0, "error": str(error)})


def _again(row: Row) -> HttpResponse:
    if not row["is_kept"]:
        detail = f"This was done before, with the status {row['status']}; its answer was not kept."
        raise HttpError(409, detail, rule="answer-not-kept")
    headers = {**json.loads(row["headers"]), "Idempotency-Replayed": "true"}
    return HttpResponse(row["status"], row["body"] or b"", row["type"] or "", headers)
