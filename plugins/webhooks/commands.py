"""What operators do with subscriptions and dead letters."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

from xmppd.plugin import CommandError, EventKind, HttpFailed, Jid, JidError, command, result_page

from .conditions import condition
from .outbox import BUCKET
from .requests import post
from .signing import live, new_key
from .subscription import ACTIVE, KIND, PAUSED, Subscription, of_row
from .window import Item, Row

if TYPE_CHECKING:
    from . import Webhooks

NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
MOST: Final = 50
"""Patterns, prefixes, domains or conditions of a subscription."""
PAGE: Final = 100
TRIES: Final = 10

TEST: Final = EventKind("webhook.test", "Somebody tries whether a receiver is there.")

Name = Annotated[str, "the name of the subscription"]
Events = Annotated[list[str], "a kind of event, or the beginning of some with a star: account.*"]
Accounts = Annotated[list[str] | None, "only of accounts whose address begins with this"]
Domains = Annotated[list[str] | None, "only of accounts on this domain"]
Where = Annotated[list[str] | None, "only where this holds of the event: data.type=chat"]
Bodies = Annotated[bool, "tell what messages say, too"]


class WebhookCommands:
    """The commands of the plugin."""

    @property
    def _it(self) -> Webhooks:
        return cast("Webhooks", self)

    @command(
        "Tell a receiver of events; the key that signs is shown once",
        name="webhook add",
        once=True,
        guarded=True,
    )
    async def add(
        self,
        name: Name,
        url: Annotated[str, "where to send them: https://"],
        *,
        event: Events,
        account: Accounts = None,
        domain: Domains = None,
        where: Where = None,
        bodies: Bodies = False,
    ) -> dict[str, str]:
        """The key. Events count from now on; other nodes know within some seconds."""
        it = self._it
        if not NAME.fullmatch(name):
            raise wrong("name", "a name is made of a-z, 0-9 and hyphens, 64 at most")
        key = new_key()
        wanted = Subscription(
            name,
            secrets.token_hex(8),
            "",
            (),
            keys=(key,),
            created=it.now(),
            **self._options(account, domain, where),
        )
        wanted = replace(wanted, url=self._url(url), events=self._events(event), bodies=bodies)
        if len((await it.subscriptions.scan(KIND)).rows) >= it.config.subscriptions:
            raise CommandError(f"there are {it.config.subscriptions} subscriptions, as many as there may be")
        if not await it.subscriptions.put_if(wanted.row(), None):
            raise CommandError(f"there is a subscription {name!r} already")
        await self._tell()
        return {"name": name, "key": key.id, "secret": key.secret}

    @command("List what receivers are told of", name="webhook list", reads=True)
    async def list_all(self) -> list[dict[str, Any]]:
        """One row for each subscription; no secrets."""
        return [of_row(row).shown() for row in (await self._it.subscriptions.scan(KIND)).rows]

    @command("Show one subscription, and its delivery by this node", name="webhook show", reads=True)
    async def show(self, name: Name) -> dict[str, Any]:
        """Beside that whether this node delivers, whether the circuit is open, and dead letters."""
        it = self._it
        found = await self.find(name)
        courier = it.couriers.get(found.id)
        dead = sum([1 async for _ in it.letters.days_of(found.id)])
        return {
            **found.shown(),
            "delivers": courier is not None and courier.lease.is_held,
            "failing": courier is not None and courier.is_open,
            "in_hand": courier.window.count if courier is not None else 0,
            "dead": dead,
        }

    @command("List the kinds of events that can be told", name="webhook events", reads=True)
    async def events(self) -> list[dict[str, Any]]:
        """Each with its version and an example of its data."""
        kinds = self._it.server.events.kinds
        return [
            {
                "event": kind.name,
                "version": kind.version,
                "help": kind.help,
                "example": json.dumps(kind.example, ensure_ascii=False),
            }
            for _, kind in sorted(kinds.items())
        ]

    @command("Change what a receiver is told of, or where it is", name="webhook change", guarded=True)
    async def change_it(
        self,
        name: Name,
        *,
        url: Annotated[str | None, "where to send them"] = None,
        event: Annotated[list[str] | None, "these kinds in place of those before"] = None,
        account: Accounts = None,
        domain: Domains = None,
        where: Where = None,
        bodies: Annotated[bool | None, "tell what messages say, too"] = None,
        everything: Annotated[bool, "no filters, but for those given here"] = False,
    ) -> dict[str, Any]:
        """As it is then. What is not given stays."""
        given: dict[str, Any] = {} if url is None else {"url": self._url(url)}
        if event is not None:
            given["events"] = self._events(event)
        if bodies is not None:
            given["bodies"] = bodies
        options = self._options(account, domain, where)
        asked = {"accounts": account, "domains": domain, "where": where}
        given |= {key: it for key, it in options.items() if everything or asked[key] is not None}
        return (await self.change(name, lambda it: given)).shown()

    @command(
        "Tell a receiver nothing any more, and forget what waits for it",
        name="webhook remove",
        confirm="Remove {name}, with all that waits for it and its dead letters?",
    )
    async def remove(self, name: Name) -> dict[str, str]:
        """What was undelivered is lost."""
        it = self._it
        found = await self.find(name)
        await it.subscriptions.delete_if(KIND, name, expect={"id": found.id})
        await self._tell()
        await self._forget(found.id)
        return {"removed": name}

    @command("Send a receiver an event that says nothing, now", name="webhook test")
    async def test(self, name: Name) -> dict[str, Any]:
        """What it answered. It is not tried again, and changes nothing."""
        it = self._it
        found = await self.find(name)
        now = it.now()
        event = {
            "id": "test",
            "kind": TEST.name,
            "version": 1,
            "time": now,
            "node": "",
            "account": "",
            "data": {},
        }
        item = Item("test", "", json.dumps(event), now, Row(0, 1))
        try:
            answer = await post(it.client, found, [item], now, it.server.version)
        except HttpFailed as error:
            raise CommandError(f"{name}: {error}") from None
        return {"status": answer.status, "taken": 200 <= answer.status < 300}

    @command(
        "Make another key; the one before signs, too, for some time",
        name="webhook rotate",
        once=True,
        guarded=True,
    )
    async def rotate(
        self,
        name: Name,
        *,
        now: Annotated[bool, "the keys before sign no more"] = False,
    ) -> dict[str, str]:
        """The new key, which is shown once."""
        it, key = self._it, new_key()
        until = it.now() + it.config.rotate_hours * 3600

        def rotated(found: Subscription) -> dict[str, Any]:
            old = (
                [] if now else [replace(one, until=one.until or until) for one in live(found.keys, it.now())]
            )
            return {"keys": (key, *old[:2])}

        await self.change(name, rotated)
        return {"name": name, "key": key.id, "secret": key.secret}

    @command("Collect events, and send none", name="webhook pause")
    async def pause_it(self, name: Name) -> dict[str, Any]:
        """As it is then."""
        return (await self.change(name, lambda it: {"state": PAUSED})).shown()

    @command(
        "Send again what was collected, also to a receiver that had said it is gone", name="webhook resume"
    )
    async def resume(self, name: Name) -> dict[str, Any]:
        """As it is then."""
        return (await self.change(name, lambda it: {"state": ACTIVE})).shown()

    # dead letters

    @command("List events that a receiver did not take", name="webhook dead list", reads=True, paged=True)
    async def dead_list(
        self, name: Name, *, after: Annotated[str | None, "go on behind this"] = None
    ) -> dict[str, Any]:
        """A page, the oldest first."""
        found = await self.find(name)
        rows: list[dict[str, Any]] = []
        token = None
        async for row in self._it.letters.days_of(found.id):
            where = f"{row['day']}/{row['id']}"
            if after is not None and where <= after:
                continue
            if len(rows) == PAGE:
                token = f"{rows[-1]['day']}/{rows[-1]['id']}"
                break
            event = json.loads(row["event"])
            rows.append(
                {
                    "id": row["id"],
                    "day": row["day"],
                    "event": event["kind"],
                    "account": event["account"],
                    "attempts": row["attempts"],
                    "reason": row["reason"],
                }
            )
        return result_page(rows, {"letters": len(rows)}, after=token)

    @command("Send events again that a receiver did not take, one or all", name="webhook dead replay")
    async def dead_replay(
        self, name: Name, *, id: Annotated[str | None, "one event; all without"] = None
    ) -> dict[str, int]:
        """How many: they are in the outbox when they are no dead letters any more."""
        it = self._it
        found = await self.find(name)
        if not found.collects:
            raise CommandError(f"the receiver of {name} is gone: resume it first")
        count = 0
        for row in [row async for row in it.letters.days_of(found.id) if id in (None, row["id"])]:
            before = it.lost.value
            written = it.boxes.put({found.id: row["event"]})
            if written is None or it.lost.value != before:
                raise CommandError(f"{name} has no room for more; {count} are sent again")
            await written
            await it.letters.forget(found.id, row)
            count += 1
        return self._some(count, id)

    @command(
        "Forget events that a receiver did not take, one or all",
        name="webhook dead drop",
        confirm="Drop dead letters of {name}?",
    )
    async def dead_drop(
        self, name: Name, *, id: Annotated[str | None, "one event; all without"] = None
    ) -> dict[str, int]:
        """How many."""
        it = self._it
        found = await self.find(name)
        rows = [row async for row in it.letters.days_of(found.id) if id in (None, row["id"])]
        if id is None:
            await it.letters.forget_all(found.id)
        else:
            for row in rows:
                await it.letters.forget(found.id, row)
        return self._some(len(rows), id)

    @staticmethod
    def _some(count: int, id: str | None) -> dict[str, int]:
        if id is not None and not count:
            raise CommandError(f"there is no dead letter {id!r}")
        return {"letters": count}

    # what they have in common

    async def find(self, name: str) -> Subscription:
        """The subscription as the store has it; CommandError."""
        row = await self._it.subscriptions.get(KIND, name)
        if row is None:
            raise CommandError(f"there is no subscription {name!r}")
        return of_row(row)

    async def change(self, name: str, columns: Callable[[Subscription], Mapping[str, Any]]) -> Subscription:
        """Change some of it, whatever others change meanwhile; CommandError, StoreError."""
        for _ in range(TRIES):
            before = await self.find(name)
            after = before.changed(**columns(before))
            if await self._it.subscriptions.put_if(after.row(), {"id": before.id, "version": before.version}):
                await self._tell()
                return after
        raise CommandError(f"{name} is being changed by others")

    async def _tell(self) -> None:
        await self._it.read()
        self._it.changed.tell()

    async def _forget(self, number: str) -> None:
        """All that is kept of a subscription that is gone."""
        it = self._it
        done = {row["writer"]: row["row"] or 0 for row in (await it.cursors.scan(number)).rows}
        for row in (await it.writers.scan(KIND)).rows:
            bucket = done.get(row["writer"], 0) // BUCKET
            while (await it.outbox.scan(number, row["writer"], bucket, limit=1)).rows:
                await it.outbox.delete(number, row["writer"], bucket)
                bucket += 1
        await it.cursors.delete(number)
        await it.letters.forget_all(number)

    def _url(self, url: str) -> str:
        try:
            self._it.client.check(url)
        except ValueError as error:
            raise wrong("url", str(error)) from None
        if len(url) > 2000:
            raise wrong("url", "the URL is longer than 2000 characters")
        return url

    def _events(self, patterns: Sequence[str]) -> tuple[str, ...]:
        bounded("event", patterns)
        kinds = self._it.server.events.kinds
        for pattern in patterns:
            if not any(kind.is_meant(pattern) for kind in kinds.values()):
                raise wrong("event", f"no kind of event is meant by {pattern!r}: see webhook events")
        if not patterns:
            raise wrong("event", "say which events: see webhook events")
        return tuple(dict.fromkeys(patterns))

    def _options(
        self, account: Sequence[str] | None, domain: Sequence[str] | None, where: Sequence[str] | None
    ) -> dict[str, Any]:
        for name, values in (("account", account), ("domain", domain), ("where", where)):
            bounded(name, values or ())
        domains = []
        for text in domain or ():
            try:
                domains.append(Jid.parse(text).domain)
            except JidError as error:
                raise wrong("domain", f"{text!r} is not a domain: {error}") from None
        return {
            "accounts": tuple(one.lower() for one in account or ()),
            "domains": tuple(domains),
            "where": tuple(map(condition, where or ())),
        }


def bounded(name: str, values: Sequence[str]) -> None:
    """CommandError for more than there may be."""
    if len(values) > MOST or any(not 0 < len(value) <= 500 for value in values):
        raise wrong(name, f"{name}: {MOST} at most, of 500 characters")


def wrong(field: str, message: str) -> CommandError:
    """What is wrong with an argument."""
    return CommandError(message, field=field, rule="parameter")
