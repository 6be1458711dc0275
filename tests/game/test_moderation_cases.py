"""Plugin moderation: reports with evidence, appeals, and the queue of moderators."""

from pathlib import Path
from typing import Any

import pytest

from xmppd import ns
from xmppd.admin.commands import Caller
from xmppd.core.events import Event
from xmppd.errors import CommandError
from xmppd.testing import Client, World, refusal

NS = "urn:xmppd:moderation:0"
MIA, TOM = "mia", "tom"


def world(*plugins: str, **config: Any) -> World:
    return World(plugins=("disco", "blocking", *plugins, "moderation"), plugin_config={"moderation": config})


async def call(world: World, name: str, **arguments: Any) -> Any:
    by = Caller("http", arguments.pop("by", MIA), "")
    result = await world.apps[-1].commands.call(f"moderation {name}", arguments, by)
    await world.settle()
    return result


async def say(client: Client, text: str, to: str) -> None:
    await client.send(f"<message to='{to}' type='chat'><body>{text}</body></message>")


def report(more: str = "", reason: str = "abuse") -> str:
    text = f"<text>He insults me.</text>{more}"
    return f"<report xmlns='{NS}' jid='bob@localhost' reason='{reason}'>{text}</report>"


async def talked(it: World) -> tuple[Client, Client]:
    alice, bob, carol = await it.login("alice"), await it.login("bob"), await it.login("carol")
    await say(alice, "hello", "bob@localhost")
    await say(bob, "you fool", "alice@localhost")
    await say(bob, "between us", "carol@localhost")
    await say(carol, "who cares", "bob@localhost")
    for client in (alice, bob, carol):
        await client.receive_all()
    return alice, bob


@pytest.mark.asyncio
@pytest.mark.parametrize("plugins", [(), ("archive", "offline")], ids=["memory", "archive"])
async def test_a_report_has_what_the_server_saw(plugins: tuple[str, ...]) -> None:
    async with world(*plugins) as it:
        alice, bob = await talked(it)
        assert (await alice.ask("set", report())).get("type") == "result"
        await it.settle()
        [row] = await call(it, "cases")
        assert (row["kind"], row["account"], row["reported"]) == (
            "report",
            "alice@localhost",
            "bob@localhost",
        )
        assert (row["reason"], row["text"], row["state"]) == ("abuse", "He insults me.", "open")
        case = await call(it, "case", id=row["id"])
        assert case["genuine"] is True
        assert [line.partition(": ")[2] for line in case["evidence"]] == ["hello", "you fool"]
        assert bob.jid in case["evidence"][1]


@pytest.mark.asyncio
async def test_evidence_cannot_be_forged() -> None:
    async with world() as it:
        alice, _ = await talked(it)
        forged = "<message xmlns='jabber:client' from='bob@localhost'><body>I hate you</body></message>"
        await alice.ask("set", report(forged))
        await it.settle()
        [row] = await call(it, "cases")
        assert "I hate you" not in str(await call(it, "case", id=row["id"]))
        table = it.plugin("moderation").evidence
        [kept, *_] = (await table.scan(row["id"])).rows
        for changed in (
            {"lines": kept["lines"].replace("fool", "hero").replace("hello", "hi")},
            {"sealed": "0" * 64},
        ):
            await table.put({**kept, **changed})
            case = await call(it, "case", id=row["id"])
            assert (case["genuine"], case["evidence"]) == (False, [])
            await table.put(kept)
        assert (await call(it, "case", id=row["id"]))["genuine"] is True


@pytest.mark.asyncio
async def test_a_report_with_a_block_and_one_by_command() -> None:
    async with world() as it:
        alice, _ = await talked(it)
        inner = f"<report xmlns='{ns.REPORTING}' reason='{ns.REPORTING_SPAM}'><text>gold</text></report>"
        await alice.ask(
            "set", f"<block xmlns='{ns.BLOCKING}'><item jid='bob@localhost'>{inner}</item></block>"
        )
        await it.settle()
        [row] = await call(it, "cases")
        assert (row["reason"], row["text"]) == (ns.REPORTING_SPAM, "gold")
        made = await call(
            it, "report", reported="bob@localhost", account="alice@localhost", text="seen in a match"
        )
        case = await call(it, "case", id=made["case"])
        assert len(case["evidence"]) == 2
        assert len(await call(it, "cases", reported="bob@localhost")) == 2
        assert await call(it, "cases", reported="carol@localhost") == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("payload", "condition"),
    [
        (f"<report xmlns='{NS}' jid='@' reason='x'/>", "modify jid-malformed"),
        (f"<report xmlns='{NS}' jid='bob@localhost'/>", "modify bad-request"),
        (f"<report xmlns='{NS}' jid='alice@localhost' reason='x'/>", "modify bad-request"),
        (f"<report xmlns='{NS}' jid='bob@localhost' reason='{'x' * 201}'/>", "modify bad-request"),
        (f"<appeal xmlns='{NS}' id='x'/>", "modify bad-request"),
        (f"<appeal xmlns='{NS}' id='x'>why</appeal>", "cancel item-not-found"),
    ],
)
async def test_what_is_refused(payload: str, condition: str) -> None:
    async with world() as it:
        alice = await it.login("alice")
        await alice.receive_all()
        assert refusal(await alice.ask("set", payload)) == condition


@pytest.mark.asyncio
async def test_reports_are_bounded() -> None:
    async with world(rates={"report": {"burst": 2, "per_second": 0.01}}) as it:
        alice, _ = await talked(it)
        answers = [await alice.ask("set", report()) for _ in range(3)]
        assert [one.get("type") for one in answers] == ["result", "result", "error"]
        assert len(await call(it, "cases")) == 2


@pytest.mark.asyncio
async def test_a_case_is_claimed_by_one_and_for_a_time() -> None:
    async with world(claim_minutes=10.0) as it:
        alice, _ = await talked(it)
        await alice.ask("set", report())
        await it.settle()
        [row] = await call(it, "cases")
        id = row["id"]
        assert (await call(it, "claim", id=id))["claimed_by"] == MIA
        assert await call(it, "cases") == []
        assert [one["id"] for one in await call(it, "cases", state="claimed")] == [id]
        for name, more in (("claim", {}), ("release", {}), ("decide", {"verdict": "upheld"})):
            with pytest.raises(CommandError, match="mia works on this case"):
                await call(it, name, id=id, by=TOM, **more)
        await call(it, "claim", id=id)  # for longer
        await call(it, "release", id=id)
        await call(it, "claim", id=id, by="panel", moderator=TOM)
        with pytest.raises(CommandError, match="tom works on this case"):
            await call(it, "claim", id=id)
        await it.advance(601)
        assert [one["id"] for one in await call(it, "cases")] == [id]
        await call(it, "claim", id=id)
        with pytest.raises(CommandError, match="there is no case"):
            await call(it, "claim", id="x")


@pytest.mark.asyncio
async def test_a_decision_sanctions_once(tmp_path: Path) -> None:
    async with world() as it:
        alice, bob = await talked(it)
        await alice.ask("set", report())
        await it.settle()
        [row] = await call(it, "cases")
        id = row["id"]
        await call(it, "claim", id=id)
        with pytest.raises(CommandError, match="kind must be"):
            await call(it, "decide", id=id, verdict="upheld", sanction="burn")
        with pytest.raises(CommandError, match="nothing comes of"):
            await call(it, "decide", id=id, verdict="dismissed", sanction="mute")
        what = {"id": id, "verdict": "upheld", "sanction": "mute", "minutes": 5.0, "reason": "Insults."}
        done = await call(it, "decide", **what)
        assert (done["state"], done["verdict"], done["decided_by"]) == ("decided", "upheld", MIA)
        assert await call(it, "decide", **what) == done  # a repeat
        [sanction] = await call(it, "sanctions", account="bob@localhost")
        assert (sanction["id"], sanction["case"], sanction["by"]) == (done["sanction"], id, MIA)
        await bob.receive_all()
        await say(bob, "x", "alice@localhost")
        assert refusal(await bob.receive()) == "cancel not-allowed"
        with pytest.raises(CommandError, match="was decided by mia"):
            await call(it, "decide", id=id, verdict="dismissed")
        assert await call(it, "cases") == []
        answer = await bob.ask("set", f"<appeal xmlns='{NS}' id='{sanction['id']}'>It was a joke.</appeal>")
        assert answer.get("type") == "result"
        await it.settle()
        [appeal] = await call(it, "cases")
        assert (appeal["kind"], appeal["reported"], appeal["text"]) == (
            "appeal",
            "bob@localhost",
            "It was a joke.",
        )
        assert appeal["reason"] == sanction["id"]


@pytest.mark.asyncio
async def test_back_ends_are_told(tmp_path: Path) -> None:
    (tmp_path / "ear.py").write_text(
        "from xmppd.plugin import Plugin, listens\n"
        "class Ear(Plugin):\n"
        "    heard = []\n"
        "    @listens('sanction.*', 'report.*', 'message.flagged')\n"
        "    def hear(self, event):\n"
        "        self.heard.append(event)\n"
    )
    it = World(plugins=("disco", "blocking", "moderation", "ear"), plugin_folders=(tmp_path,))
    async with it:
        alice, _ = await talked(it)
        await alice.ask("set", report())
        await it.settle()
        [row] = await call(it, "cases")
        await call(it, "claim", id=row["id"])
        done = await call(it, "decide", id=row["id"], verdict="upheld", sanction="ban", minutes=5.0)
        await call(it, "lift", account="bob@localhost", id=done["sanction"])
        heard: list[Event] = sorted(
            (one for plugin in it.plugins("ear") for one in plugin.heard), key=lambda e: e.time
        )
        for plugin in it.plugins("ear"):
            plugin.heard.clear()
        told = {event.kind: event for event in heard}
        assert set(told) == {
            "report.queued",
            "report.claimed",
            "sanction.imposed",
            "report.decided",
            "sanction.lifted",
        }
        assert told["sanction.imposed"].account == "bob@localhost"
        assert told["sanction.imposed"].data["case"] == row["id"]
        assert told["report.decided"].data == {
            "case": row["id"],
            "verdict": "upheld",
            "sanction": done["sanction"],
            "by": MIA,
        }
