"""kill [--archived [--nodes 2]] [--kills N] [--seed S] [--port P] [--store sqlite|cassandra]: SIGKILL under
mixed load, and an oracle.

Clients change rosters, make and end friendships, send messages to accounts that are away, store vCards and
private XML, register, change passwords and remove accounts, in-band and by the command socket. Each knows
what was answered and what was on its way. After a restart everything answered must be there, once; what was
on its way may have happened or not. A friendship is two rows in two rosters: a kill between them leaves a
half state, which is counted by kind, and must be gone after the client repeats what it wanted.

With `--archived` clients with stream management write to each other, some of which ask their archives when
they come back, and a server with an archive is killed, or one of two nodes: what was acknowledged comes, once
to whoever looks at ids, and in order. Some clients come back without the id of their session, and some nodes
stop in peace just before another one is killed.
"""

import argparse
import asyncio
import contextlib
import json
import random
import re
import sys
from typing import Any

import archived
from backend import DEFAULT, STORES, Backend
from nodes import Node
from oracle import Fact, Oracle, items_of
from stream import Refused, Stream, connect
from victim import PASSWORD, ROSTER, Server

from xmppd.errors import CommandError

ACTORS = 5
"""Of each kind."""
LATE = {"cache-lost", "cache-channel-lost"}
"""What a server says of a cache that answers late, as on a busy machine. It goes on without."""
CONTACTS = 15
REGISTER = "jabber:iq:register"


class Actor:
    """A client that works until the server is gone, and checks when it is back."""

    kind = ""

    def __init__(self, number: int, server: Server, oracle: Oracle, chance: random.Random) -> None:
        self.name = f"{self.kind}{number}"
        self.server = server
        self.oracle = oracle
        self.chance = chance
        self.count = 0

    def accounts(self) -> list[str]:
        """Which have to be there at the start."""
        return [self.name]

    async def work(self) -> None:
        """Until the connection ends."""
        with contextlib.suppress(ConnectionError, EOFError):
            await self.begin()
            while True:
                self.count += 1
                await self.step()
                self.oracle.answered[self.kind] += 1

    async def begin(self) -> None:
        self.stream = await self.server.log_in(self.name)

    async def step(self) -> None:
        raise NotImplementedError

    async def check(self) -> None:
        raise NotImplementedError


class RosterWriter(Actor):
    """Adds, renames and removes contacts."""

    kind = "roster"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.contacts = {f"contact{number}@localhost": Fact() for number in range(CONTACTS)}

    async def step(self) -> None:
        jid, fact = self.chance.choice(list(self.contacts.items()))
        name = None if fact.value and self.chance.random() < 0.3 else f"name {self.count}"
        what = "subscription='remove'" if name is None else f"name='{name}'"
        item = f"<item jid='{jid}' {what}/>"
        with fact.change(name):
            await self.stream.ask("set", f"<query xmlns='{ROSTER}'>{item}</query>")

    async def check(self) -> None:
        stream = await self.server.log_in(self.name)
        items = items_of(await stream.ask("get", f"<query xmlns='{ROSTER}'/>"))
        found = {item["jid"]: item.get("name", "") for item in items}
        if len(found) != len(items):
            self.oracle.wrong.append(f"{self.name}: a contact is there twice")
        for jid, fact in self.contacts.items():
            self.oracle.check(f"{self.name}: contact {jid}", fact, found.get(jid))
        stream.cut()


class Writer(Actor):
    """Writes to an account that is away."""

    kind = "message"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.absent = f"{self.name}-away"
        self.kept: list[str] = []
        self.sending = ""

    def accounts(self) -> list[str]:
        return [self.name, self.absent]

    async def step(self) -> None:
        self.sending = f"{self.name}-{self.count}"
        body = f"<body>{self.sending}</body>"
        self.stream.write(f"<message to='{self.absent}@localhost' type='chat'>{body}</message>")
        await self.stream.ping()
        self.kept.append(self.sending)
        self.sending = ""

    async def check(self) -> None:
        stream = await self.server.log_in(self.absent)
        stream.write("<presence/>")
        seen = await stream.ping() + await stream.ping()
        found = [body.decode() for body in re.findall(rb"<body>([^<]*)</body>", seen)]
        self.oracle.unanswered += bool(self.sending)
        if found not in (self.kept, [*self.kept, self.sending]):
            lost, new = set(self.kept) - set(found), set(found) - set(self.kept)
            self.oracle.wrong.append(
                f"{self.absent}: lost {sorted(lost)}, not sent now {sorted(new)}, {len(found)} in all"
            )
        self.kept, self.sending = [], ""
        await stream.leave()


class Keeper(Actor):
    """Stores a vCard, private XML, and now and then another password."""

    kind = "keeper"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.card, self.private, self.password = Fact(""), Fact(""), Fact(PASSWORD)

    async def begin(self) -> None:
        self.stream = await self.server.log_in(self.name, self.password.value)

    async def step(self) -> None:
        value = f"v{self.count}"
        if self.count % 5 == 0:
            with self.password.change(value):
                fields = f"<username>{self.name}</username><password>{value}</password>"
                await self.stream.ask("set", f"<query xmlns='{REGISTER}'>{fields}</query>")
        elif self.count % 2:
            with self.card.change(value):
                await self.stream.ask("set", f"<vCard xmlns='vcard-temp'><FN>{value}</FN></vCard>")
        else:
            with self.private.change(value):
                await self.stream.ask(
                    "set", f"<query xmlns='jabber:iq:private'><k xmlns='urn:k'>{value}</k></query>"
                )

    async def check(self) -> None:
        fitting = await passwords(self.server, self.name, self.password.possible)
        self.oracle.check(f"{self.name}: password", self.password, fitting)
        if fitting is None:
            return
        stream = await self.server.log_in(self.name, fitting)
        for fact, query in (
            (self.card, "<vCard xmlns='vcard-temp'/>"),
            (self.private, "<query xmlns='jabber:iq:private'><k xmlns='urn:k'/></query>"),
        ):
            try:
                seen = await stream.ask("get", query)
            except Refused:
                seen = b""
            found = re.search(rb">(v\d+)<", seen)
            self.oracle.check(f"{self.name}: {query}", fact, found[1].decode() if found else "")
        stream.cut()


class Founder(Actor):
    """Makes an account, gives it a password, a contact and a card, removes it: by the command socket."""

    kind = "founder"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.password = Fact()

    def accounts(self) -> list[str]:
        return []

    async def begin(self) -> None:
        if self.password.value is None:
            await self.found()

    async def found(self) -> None:
        """Whoever has the name now finds nothing of those who had it before."""
        password = f"first{self.count}"
        with self.password.change(password):
            await self.add(password)
        stream = await self.server.log_in(self.name, password)
        stream.write("<presence/>")
        seen = await stream.ping()
        seen += await stream.ask("get", f"<query xmlns='{ROSTER}'/>")
        with contextlib.suppress(Refused):
            seen += await stream.ask("get", "<vCard xmlns='vcard-temp'/>")
        if b"<body>" in seen or b"<item" in seen or b"<FN>" in seen:
            self.oracle.wrong.append(f"{self.name}: inherited {seen!r}")
        await stream.ask("set", f"<query xmlns='{ROSTER}'><item jid='a@localhost'/></query>")
        await stream.ask("set", "<vCard xmlns='vcard-temp'><FN>mine</FN></vCard>")
        await stream.leave()
        other = await self.server.log_in("roster0")
        other.write(f"<message to='{self.name}@localhost' type='chat'><body>kept</body></message>")
        await other.ping()
        other.cut()

    async def step(self) -> None:
        if self.password.value is None:
            await self.found()
        elif self.count % 3:
            password = f"later{self.count}"
            with self.password.change(password):
                await self.set_password(password)
        else:
            with self.password.change(None):
                await self.remove()

    async def add(self, password: str) -> None:
        while True:
            try:
                await self._command("user add", password=password)
                return
            except CommandError as error:
                if "just now" not in str(error):  # other servers may still write for who had the name
                    raise
                await asyncio.sleep(0.2)

    async def set_password(self, password: str) -> None:
        await self._command("user passwd", password=password)

    async def remove(self) -> None:
        await self._command("user remove")

    async def _command(self, name: str, **arguments: str) -> None:
        try:
            await self.server.command(name, account=f"{self.name}@localhost", **arguments)
        except CommandError as error:
            if error.exit_code == 69:
                raise ConnectionResetError from None
            raise

    async def check(self) -> None:
        await self.settled()
        was_removing = None in self.password.unsettled
        fitting = await passwords(self.server, self.name, [p for p in self.password.possible if p])
        if was_removing and fitting is None and await self.exists():
            # Disabled, its removal not finished: a repeat goes on where it was left.
            self.oracle.halves[f"{self.kind}: an account disabled, and not yet removed"] += 1
            await self._command("user remove")
        self.oracle.check(f"{self.name}: password", self.password, fitting)
        if fitting is None and await self.exists():
            self.oracle.wrong.append(f"{self.name} is there, and nobody has its password")

    async def settled(self) -> None:
        """Nothing goes on by itself."""

    async def exists(self) -> bool:
        try:
            await self.server.command("user show", account=f"{self.name}@localhost")
        except CommandError:
            return False
        return True


class Guest(Founder):
    """The same in-band (XEP-0077)."""

    kind = "guest"

    async def add(self, password: str) -> None:
        stream = await connect(self.server.port)
        await stream.open()
        fields = f"<username>{self.name}</username><password>{password}</password>"
        while True:
            try:
                await stream.ask("set", f"<query xmlns='{REGISTER}'>{fields}</query>")
                break
            except Refused as refused:
                if str(refused) != "conflict":  # it is still being removed
                    raise
                await asyncio.sleep(0.01)
        stream.cut()

    async def set_password(self, password: str) -> None:
        stream = await self.server.log_in(self.name, self.password.value)
        fields = f"<username>{self.name}</username><password>{password}</password>"
        await stream.ask("set", f"<query xmlns='{REGISTER}'>{fields}</query>")
        stream.cut()

    async def settled(self) -> None:
        """The server finishes the removals that it has promised."""
        if None in self.password.possible:
            for _ in range(10):
                if not await self.exists():
                    break
                await asyncio.sleep(0.1)

    async def remove(self) -> None:
        stream = await self.server.log_in(self.name, self.password.value)
        await stream.ask("set", f"<query xmlns='{REGISTER}'><remove/></query>")
        stream.cut()


class Friends(Actor):
    """Two accounts that ask for, grant and end subscriptions; each direction is kept in two rosters."""

    kind = "friends"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.names = (f"{self.name}-a", f"{self.name}-b")
        # (who sees, whose half): none, asked or granted
        self.halves = {(x, whose): Fact("none") for x in (0, 1) for whose in (0, 1)}
        self.doing: tuple[int, str, dict[int, str]] | None = None

    def accounts(self) -> list[str]:
        return [*self.names]

    async def begin(self) -> None:
        self.streams = [await self.server.log_in(name) for name in self.names]
        for stream in self.streams:
            await stream.ask("get", f"<query xmlns='{ROSTER}'/>")
            stream.write("<presence/>")

    async def step(self) -> None:
        """`x` is who sees or would see the other."""
        x = self.chance.randrange(2)
        state = self.halves[x, x].value
        if state == "none":
            act = (x, "subscribe", {x: "asked"})
        elif state == "asked":
            act = self.chance.choice([
                (1 - x, "subscribed", {x: "granted"}), (1 - x, "subscribed", {x: "granted"}),
                (1 - x, "unsubscribed", {x: "none"}), (x, "unsubscribe", {x: "none"}),
            ])  # fmt: skip
        else:
            act = self.chance.choice([
                (x, "unsubscribe", {x: "none"}), (1 - x, "unsubscribed", {x: "none"}),
                (x, "remove", {0: "none", 1: "none"}),
            ])  # fmt: skip
        await self.do(self.streams, act)

    async def do(self, streams: list[Stream], act: tuple[int, str, dict[int, str]]) -> None:
        who, what, result = act
        self.doing = act
        with contextlib.ExitStack() as changes:
            for x, state in result.items():
                for whose in (0, 1):
                    changes.enter_context(self.halves[x, whose].change(state))
            jid = f"{self.names[1 - who]}@localhost"
            if what == "remove":
                item = f"<item jid='{jid}' subscription='remove'/>"
                await streams[who].ask("set", f"<query xmlns='{ROSTER}'>{item}</query>")
            else:
                streams[who].write(f"<presence to='{jid}' type='{what}'/>")
                await streams[who].ping()
        self.doing = None

    async def check(self) -> None:
        streams = [await self.server.log_in(name) for name in self.names]
        doing, found = self.doing, await self.look(streams)
        for place, fact in self.halves.items():
            self.oracle.check(f"{self.name}: half {place} of {doing}", fact, found[place])
        torn = [x for x in (0, 1) if found[x, 0] != found[x, 1]]
        if torn and doing is None:
            self.oracle.wrong.append(f"{self.name}: halves differ, and nothing was on its way: {found}")
        elif torn and doing is not None:
            await self._repair(streams, doing, torn, found)
        for stream in streams:
            stream.cut()
        self.doing = None

    async def _repair(
        self,
        streams: list[Stream],
        doing: tuple[int, str, dict[int, str]],
        torn: list[int],
        found: dict[tuple[int, int], str],
    ) -> None:
        """The client does again what it wanted."""
        for x in torn:
            kind = f"{doing[1]}: who sees has {found[x, x]}, who is seen has {found[x, 1 - x]}"
            self.oracle.halves[f"friends: {kind}"] += 1
        try:
            await self.do(streams, doing)
        except Refused:
            self.oracle.halves["friends: the repeat was refused"] += 1
        now = await self.look(streams)
        for place, fact in self.halves.items():
            fact.settle(now[place])
        if any(now[x, 0] != now[x, 1] for x in (0, 1)):
            self.oracle.wrong.append(f"{self.name}: {doing} repeated, and the halves differ still: {now}")

    async def look(self, streams: list[Stream]) -> dict[tuple[int, int], str]:
        found = {}
        for me in (0, 1):
            other = f"{self.names[1 - me]}@localhost"
            items = items_of(await streams[me].ask("get", f"<query xmlns='{ROSTER}'/>"))
            mine = [item for item in items if item["jid"] == other]
            if len(mine) > 1:
                self.oracle.wrong.append(f"{self.name}: a contact is there twice")
            item = mine[0] if mine else {}
            streams[me].write("<presence type='unavailable'/><presence/>")
            seen = await streams[me].ping()
            asked = any(
                b"subscribe'" in tag.replace(b'"', b"'") and b"unsubscribe" not in tag
                for tag in re.findall(rb"<presence [^>]*>", seen)
                if other.encode() in tag
            )
            subscription = item.get("subscription", "none")
            out = "granted" if subscription in ("to", "both") else "asked" if "ask" in item else "none"
            into = "granted" if subscription in ("from", "both") else "asked" if asked else "none"
            found[me, me], found[1 - me, me] = out, into
        return found


async def passwords(server: Server, user: str, candidates: list[str]) -> str | None:
    """The one that opens the account."""
    for password in candidates:
        with contextlib.suppress(Refused):
            stream = await server.log_in(user, password)
            stream.cut()
            return password
    return None


KINDS: tuple[type[Actor], ...] = (RosterWriter, Writer, Keeper, Founder, Guest, Friends)


async def run(server: Server, kills: int, seed: int, within: float) -> int:
    """All of it, each kill `within` so many seconds; the exit status."""
    oracle, chance = Oracle(), random.Random(seed)
    starts = [await server.start()]
    actors = [kind(n, server, oracle, random.Random(f"{seed}/{kind.kind}/{n}"))
              for kind in KINDS for n in range(ACTORS)]  # fmt: skip
    for actor in actors:
        for name in actor.accounts():
            await server.command("user add", account=f"{name}@localhost", password=PASSWORD)
    for _ in range(kills):
        working = [asyncio.create_task(actor.work()) for actor in actors]
        await asyncio.sleep(within * (0.2 + 0.8 * chance.random()))
        server.kill()
        await asyncio.gather(*working)
        starts.append(await server.start())
        await asyncio.gather(*(actor.check() for actor in actors))
    return report(server, oracle, kills, seed, starts)


def report(server: Server, oracle: Oracle, kills: int, seed: int, starts: list[float]) -> int:
    """Print it; the exit status."""
    server.collect_log()
    print(f"{kills} kills, seed {seed}; restart at most {max(starts):.1f} s; "
          f"{oracle.unanswered} changes were on their way")  # fmt: skip
    for kind, count in sorted(oracle.answered.items()):
        print(f"answered, {kind}: {count}")
    for kind, count in sorted(oracle.halves.items()):
        print(f"half done, {kind}: {count}")
    logged = [line for line in server.log if json.loads(line)["event"] not in LATE]
    wrong = [*oracle.wrong, *(f"logged: {line}" for line in logged)]
    missing = [kind.kind for kind in KINDS if oracle.answered[kind.kind] < kills]
    if missing:
        wrong.append(f"hardly any load of {', '.join(missing)}")
    print("\n".join(["FAILED:", *wrong[:40]]) if wrong else "passed: nothing answered is lost or there twice")
    return 1 if wrong else 0


def kill_archived(arguments: argparse.Namespace, backend: Backend) -> int:
    """The command line with `--archived`."""
    server = archived.Alone(backend.folder / "server", arguments.port, profile="full")
    nodes: list[Node] = []
    try:
        backend.start()
        server.environ = backend.environ()
        if arguments.nodes > 1:
            nodes = archived.nodes_of(backend, arguments.port, arguments.nodes)
        return asyncio.run(
            archived.run(
                nodes or [server],
                nodes[0].ask if nodes else server.command,
                count=arguments.nodes,
                kills=arguments.kills,
                seed=arguments.seed,
                within=arguments.within,
                rate=arguments.rate,
            )
        )
    finally:
        backend.remove()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--within", type=float, default=0.75, help="seconds from a start to a kill, at most")
    parser.add_argument("--port", type=int, default=25742)
    parser.add_argument("--store", choices=STORES, default=DEFAULT)
    parser.add_argument("--archived", action="store_true", help="messages between managed clients, alone")
    parser.add_argument("--nodes", type=int, default=1, help="of which one is killed each time (--archived)")
    parser.add_argument("--rate", type=float, default=100, help="messages a second (--archived)")
    arguments = parser.parse_args()
    backend = Backend(arguments.store)
    if arguments.archived:
        return kill_archived(arguments, backend)
    server = Server(backend.folder / "server", arguments.port)
    try:
        backend.start()
        server.environ = backend.environ()
        return asyncio.run(run(server, arguments.kills, arguments.seed, arguments.within))
    finally:
        server.stop()
        backend.remove()


if __name__ == "__main__":
    sys.exit(main())
