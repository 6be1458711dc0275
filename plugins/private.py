"""Private XML storage (XEP-0049): clients keep what they like, by the name of its root element."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xmppd import hooks, ns
from xmppd.plugin import (
    ACCOUNT,
    SERVER,
    Element,
    Person,
    Plugin,
    PluginConfig,
    PositiveInt,
    Put,
    Request,
    Session,
    StanzaError,
    Table,
    element,
    gives,
    insert_child,
    iq_get,
    iq_set,
    serialize,
    takes,
)

QUERY = f"{{{ns.PRIVATE}}}query"


class PrivateConfig(PluginConfig):
    """How many different elements one account may keep, and how many bytes they may have together."""

    max_elements: PositiveInt = 100
    max_bytes: PositiveInt = 524_288


class Private(Plugin):
    """Keeps elements by (account, Clark name); those of one name and one request are kept together."""

    Config = PrivateConfig
    elements = Table(
        partition=("account",), cluster=("name",), columns={"value": "blob"}, person=Person("account")
    )

    @iq_get(QUERY, ACCOUNT, SERVER)
    async def show(self, request: Request) -> bytes:
        """What was stored under the name asked for; the empty element itself when there is nothing."""
        names = dict.fromkeys(child.tag for child in asked(request))
        kept = await self._load(request.target)
        found = (kept.get(name) or serialize(element(name), ns.PRIVATE) for name in names)
        return insert_child(serialize(element(QUERY)), "query", b"".join(found))

    @iq_set(QUERY, ACCOUNT, SERVER)
    async def change(self, request: Request) -> None:
        """Replace what was stored under each of the names given, all of them or none."""
        given: dict[str, bytes] = {}
        for child in asked(request):
            given[child.tag] = given.get(child.tag, b"") + serialize(child, ns.PRIVATE)
        account = request.target
        session = request.origin if isinstance(request.origin, Session) else None
        async with self.server.writing(account, session) as exists:
            if not exists:
                raise StanzaError("not-allowed", "An anonymous session cannot store anything.")
            # Two requests at once may exceed the bounds by one of them: they guard the disk, and promise
            # nothing.
            kept = await self._load(account) | given
            size = sum(map(len, kept.values()))
            if len(kept) > self.config.max_elements or size > self.config.max_bytes:
                raise StanzaError("policy-violation", "This is more than one account may store.")
            writes = [Put({"name": name, "value": value}) for name, value in given.items()]
            await self.elements.batch(account, writes=writes)

    async def _load(self, account: str) -> dict[str, bytes]:
        return {row["name"]: row["value"] for row in (await self.elements.scan(account)).rows}

    @gives("private", many=True)
    async def give(self, accounts: Sequence[str]) -> list[dict[str, str] | None]:
        """All elements of each as text, by the Clark name of their root."""
        found = await self.elements.scan_many(accounts)
        return [{row["name"]: row["value"].decode() for row in rows} or None for rows in found]

    @takes("private")
    async def take(self, account: str, elements: Mapping[str, str] | None) -> None:
        """Those that come with their account."""
        new = elements or {}
        gone = [name for name in await self._load(account) if name not in new]
        for name, value in new.items():
            await self.elements.put({"account": account, "name": name, "value": value.encode()})
        for name in gone:
            await self.elements.delete(account, name)

    @hooks.account_removed
    async def forget(self, account: str) -> None:
        """What is private goes with its account."""
        await self.elements.delete(account)


def asked(request: Request) -> list[Element]:
    """What a request names: of its own account, at least one element, all in one namespace (XEP-0049 2.3)."""
    if not request.is_own:
        raise StanzaError("forbidden", "Private data belongs to another account.")
    namespaces = {child.tag.rpartition("}")[0][1:] for child in request.payload}
    if len(namespaces) != 1 or namespaces <= {"", ns.PRIVATE}:
        raise StanzaError("not-acceptable", "There must be an element, in one namespace of its own.")
    return list(request.payload)
