"""Looks for a name everywhere it may be left: all tables of a store, and all keys of Redis."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from redis.asyncio import Redis

from xmppd.rights.persons import person_of
from xmppd.store.table import Table
from xmppd.testing import World


def forms_of(name: str) -> list[bytes]:
    """A name in each encoding in which it may be written: of base64 at each place of a longer text."""
    plain = name.encode()
    in_base64 = [base64.b64encode(b"x" * shift + plain)[shift + 1 : -4] for shift in range(3)]
    return [
        plain,
        json.dumps(name)[1:-1].encode(),
        plain.hex().encode(),
        name.encode("utf-16-le"),
        *in_base64,
    ]


def has(value: Any, forms: list[bytes]) -> bool:
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogatepass")
    return isinstance(value, bytes) and any(form in value for form in forms)


async def rows_with(world: World, name: str) -> list[tuple[str, str, Any]]:
    """Table, column and key of whatever holds the name."""
    forms, found = forms_of(name), []
    for table in world.app.tables():
        page = None
        while True:
            dump = await world.app.store.dump(table, page=page)
            for stored in dump.entries:
                named = [*zip(table.key, stored.key, strict=False), *stored.values.items()]
                found += [(table.name, column, stored.key) for column, it in named if has(it, forms)]
            if (page := dump.next) is None:
                break
    return found


def allowed(world: World) -> set[tuple[str, str]]:
    """Where a name may be left: what other people keep, and what keeps late writes out for a day."""
    return {*_kept(world.app.tables()), ("account_gone", "account"), ("roster", "account")}


def _kept(tables: list[Table]) -> Iterator[tuple[str, str]]:
    for table in tables:
        for column, fate in person_of(table).mentions.items():
            if fate == "kept":
                yield table.name, column


async def keys_with(url: str, prefix: str, name: str) -> list[bytes]:
    """Keys of Redis behind a prefix that hold the name, or whose values do."""
    forms, found = forms_of(name), []
    redis = Redis.from_url(url)
    try:
        async for key in redis.scan_iter(match=f"{prefix}:*"):
            kind = (await redis.type(key)).decode()
            value: Any = b""
            if kind == "string":
                value = await redis.get(key)
            elif kind == "hash":
                value = repr(await redis.hgetall(key))
            if has(key, forms) or has(value, forms):
                found.append(key)
    finally:
        await redis.aclose()
    return found
