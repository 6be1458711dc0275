"""Spans: which there are, what they say and what they never say, and what becomes of them."""

import asyncio
import hashlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from patience import PATIENCE

from xmppd.admin.commands import Caller, Command
from xmppd.admin.registry import Commands
from xmppd.core.accounts import ACCOUNT as ACCOUNTS
from xmppd.core.logins import Logins
from xmppd.errors import CommandError
from xmppd.net.c2s.service import Service
from xmppd.net.c2s.stream import Stream
from xmppd.net.http.routes import Routes
from xmppd.seeing.otel import MOST, OtelSpans
from xmppd.seeing.spans import CURRENT, current, inside, spans_of, step, whole
from xmppd.seeing.traced import trace
from xmppd.testing import World

TOKEN = "a-long-enough-token-of-a-test"
TOKENS = {
    "tokens": [{"name": "backend", "sha256": hashlib.sha256(TOKEN.encode()).hexdigest(), "scopes": ["*"]}]
}
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Traced:
    """Spans that were recorded in memory."""

    def __init__(self, ratio: float = 1.0) -> None:
        self.exporter = InMemorySpanExporter()
        self.spans = OtelSpans(self.exporter, "test", ratio)

    def all(self) -> list[ReadableSpan]:
        self.spans.close(10.0)
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def names(self) -> list[str]:
        return [span.name for span in self.all()]

    def one(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.all() if span.name == name]
        return found

    def below(self, parent: ReadableSpan) -> list[ReadableSpan]:
        return [it for it in self.all() if it.parent and it.parent.span_id == parent.context.span_id]


def said(span: ReadableSpan) -> Mapping[str, Any]:
    return dict(span.attributes or {})


@asynccontextmanager
async def traced_world(ratio: float = 1.0, **about: Any) -> AsyncIterator[tuple[World, Traced]]:
    traced = Traced(ratio)
    async with World(nodes=1, **about) as world:
        trace(world.app, traced.spans)
        yield world, traced
    traced.spans.close(10.0)


@pytest.mark.asyncio
async def test_a_login_is_a_span_with_its_steps() -> None:
    async with traced_world() as (world, traced):
        alice = await world.login("alice")
        bob = await world.login("bob")
        await alice.send(f"<message to='{bob.jid}' type='chat'><body>hi</body></message>")
        await world.settle()
        logins = [span for span in traced.all() if span.name == "login"]
    assert len(logins) == 2
    login = logins[0]
    assert said(login) == {
        "xmppd.transport": "tcp",
        "xmppd.security": "none",
        "xmppd.domain": "localhost",
        "xmppd.mechanism": "PLAIN",
    }
    steps = traced.below(login)
    assert [span.name for span in steps] == ["login auth", "login iq"]
    assert said(steps[0]) == {"xmppd.mechanism": "PLAIN", "xmppd.outcome": "success"}
    assert all(span.status.is_ok or span.status.is_unset for span in [login, *steps])
    assert login.start_time is not None and login.end_time is not None
    assert login.start_time < login.end_time
    # Who has bound has none: what it says is not looked at.
    assert {span.name for span in traced.all()} <= {"login", "login auth", "login iq"} | {
        span.name for span in traced.all() if span.name.startswith("store ")
    }
    text = " ".join(span.to_json() for span in traced.all())
    assert "alice" not in text and "bob" not in text and "secret" not in text


@pytest.mark.asyncio
async def test_a_bound_stream_has_its_own_class_again() -> None:
    async with traced_world() as (world, traced):
        client = world.connect()
        await client.open()
        (stream,) = world.app.service.connections
        assert type(stream) is not Stream
        await client.authenticate("alice")
        await client.open()
        await client.bind()
        assert type(stream) is Stream
        await client.drop()
        gone = world.connect()
        await gone.open()
        await gone.drop()
        await world.settle()
    problems = [said(span).get("error.type") for span in traced.all() if span.name == "login"]
    assert problems == [None, "gone"]


@pytest.mark.asyncio
async def test_attempts_that_fail_say_why_and_the_login_goes_on() -> None:
    async with traced_world() as (world, traced):
        client = world.connect()
        await client.open()
        await client.authenticate("alice", "wrong")
        await client.authenticate("alice")
        await client.open()
        await client.bind()
        await client.drop()
        silent = world.connect()
        await silent.drop()
        bad = world.connect()
        await bad.open("elsewhere")
    outcomes = [said(span).get("xmppd.outcome") for span in traced.all() if span.name == "login auth"]
    assert outcomes == ["not-authorized", "success"]
    problems = [said(span).get("error.type") for span in traced.all() if span.name == "login"]
    assert problems == [None, "host-unknown"], "who said nothing has none"


@pytest.mark.asyncio
async def test_names_of_elements_that_clients_choose_are_told_nowhere() -> None:
    async with traced_world() as (world, traced):
        client = world.connect()
        await client.open()
        await client.send("<secret-name xmlns='urn:secret'/>")
        await world.settle()
    assert "login other" in traced.names()
    assert "secret" not in " ".join(span.to_json() for span in traced.all())


@pytest.mark.asyncio
async def test_the_account_is_told_where_that_is_configured() -> None:
    async with traced_world(settings={"tracing": {"accounts": True}}) as (world, traced):
        await world.login("alice")
    assert said(traced.one("login"))["xmppd.account"] == "alice@localhost"


@pytest.mark.asyncio
async def test_a_request_takes_over_the_trace_of_its_caller() -> None:
    async with traced_world(settings={"http": TOKENS}) as (world, traced):
        answer = await world.http("GET", "/api/v1/user/list", token=TOKEN, headers={"traceparent": CALLER})
        assert answer.status == 200, answer.body
        await world.http("GET", "/nowhere")
        await world.http("GET", "/healthz")
    request = traced.one("GET /api/v1/user/list")
    assert said(request) == {
        "http.request.method": "GET",
        "http.route": "/api/v1/user/list",
        "http.response.status_code": 200,
        "xmppd.token": "backend",
    }
    assert request.kind.name == "SERVER"
    assert request.parent is not None and f"{request.parent.span_id:016x}" == CALLER.split("-")[2]
    assert f"{request.context.trace_id:032x}" == CALLER.split("-")[1]
    (command,) = [span for span in traced.below(request) if span.name == "command user list"]
    assert said(command) == {"xmppd.command": "user list", "xmppd.door": "http"}
    asked = traced.below(command)
    assert asked and all(span.name.startswith("store ") and span.kind.name == "CLIENT" for span in asked)
    assert {"db.system.name", "db.operation.name", "db.collection.name"} == set(said(asked[0]))
    assert said(asked[0])["db.collection.name"] == "account"
    assert said(traced.one("HTTP"))["http.response.status_code"] == 404
    assert TOKEN not in " ".join(span.to_json() for span in traced.all())
    assert not any("healthz" in span.to_json() for span in traced.all())


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "header", ["", "nonsense", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "\0", "é" * 300]
)
async def test_a_traceparent_that_is_none_begins_a_new_one(header: str) -> None:
    async with traced_world() as (world, traced):
        await world.http("GET", "/nowhere", headers={"traceparent": header})
    assert traced.one("HTTP").parent is None


@pytest.mark.asyncio
async def test_commands_by_other_doors_and_their_refusals() -> None:
    async with traced_world() as (world, traced):
        commands = world.app.commands
        by = Caller("socket", "root")
        await commands.call("user add", {"account": "dave@localhost", "password": "long enough 1"}, by)
        with pytest.raises(CommandError):
            await commands.call("user remove", {"account": "nobody@localhost"}, by)
        with pytest.raises(CommandError):
            await commands.call("no-such-word of-a-caller", {}, by)
    made = traced.one("command user add")
    assert said(made) == {"xmppd.command": "user add", "xmppd.door": "socket"}
    assert made.parent is None
    assert any(span.name.startswith("store put") for span in traced.below(made))
    refused = traced.one("command user remove")
    assert refused.status.status_code.name == "ERROR" and said(refused)["error.type"]
    text = " ".join(span.to_json() for span in traced.all())
    assert "dave" not in text and "nobody" not in text and "no-such-word" not in text


@pytest.mark.asyncio
async def test_a_job_that_outlives_its_span_is_a_part_of_none() -> None:
    async with traced_world() as (world, traced):
        seen: list[object] = []
        go = asyncio.Event()

        async def later() -> None:
            seen.append(current())
            await go.wait()
            seen.append(current())
            await world.app.store.get_many(ACCOUNTS, [])

        async def begin() -> str:
            world.app.jobs.spawn(later())
            await asyncio.sleep(0)
            return "begun"

        world.app.commands.add(Command("begin it", "Begin a job", reads=True, function=begin))
        await world.app.commands.call("begin it", {}, Caller("socket", "root"))
        assert current() is None
        go.set()
        await world.settle()
    assert seen[0] is not None and seen[1] is None
    assert traced.below(traced.one("command begin it")) == []


@pytest.mark.asyncio
async def test_what_is_not_sampled_has_no_parts_either() -> None:
    async with traced_world(0.0, settings={"http": TOKENS}) as (world, traced):
        await world.login("alice")
        await world.http("GET", "/api/v1/user/list", token=TOKEN)
        sampled = await world.http("GET", "/api/v1/user/list", token=TOKEN, headers={"traceparent": CALLER})
        assert sampled.status == 200
    roots = [span.name for span in traced.all() if span.parent is None]
    assert roots == []
    assert traced.names().count("command user list") == 1, "whose caller wanted it"


@pytest.mark.asyncio
async def test_without_a_collector_nothing_is_of_another_class() -> None:
    async with World(nodes=1) as world:
        world.app.seeing.begin_spans()
        app = world.app
        assert spans_of(app.config) is None and app.seeing.spans is None
        assert (type(app.service), type(app.routes), type(app.commands)) == (Service, Routes, Commands)
        assert type(app.logins) is Logins and app.logins.attempted is None
        await world.login("alice")
        assert CURRENT.get() is None
        await app.seeing.end_spans()


class Stuck(SpanExporter):
    """A collector that does not answer until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.entered = threading.Event()
        self.sent = 0

    def export(self, spans: Any) -> SpanExportResult:
        self.entered.set()
        self.go.wait(2 * PATIENCE)
        self.sent += len(spans)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


def test_no_more_wait_than_may_and_what_is_dropped_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    stuck = Stuck()
    spans = OtelSpans(stuck, "test", 1.0)
    spans.begin("first").end()
    assert stuck.entered.wait(10)
    for _ in range(MOST + 7):
        spans.begin("more").end()
    assert spans.counts == {"exported": 0, "failed": 0, "dropped": 7}
    began = time.monotonic()
    spans.close(0.2)
    assert time.monotonic() - began < PATIENCE
    assert spans.counts["dropped"] == MOST + 7
    assert "spans-left" in caplog.messages
    spans.begin("too late").end()
    assert spans.counts["dropped"] == MOST + 8
    stuck.go.set()
    spans.close(10)
    assert stuck.sent == 1


class Failing(SpanExporter):
    """A collector that is not there, and then is."""

    def __init__(self) -> None:
        self.outcomes = iter([SpanExportResult.FAILURE, None, SpanExportResult.SUCCESS])
        self.asked = threading.Semaphore(0)

    def export(self, spans: Any) -> SpanExportResult:
        self.asked.release()
        outcome = next(self.outcomes)
        if outcome is None:
            raise OSError
        return outcome

    def shutdown(self) -> None:
        pass


def test_a_collector_that_fails_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    failing = Failing()
    spans = OtelSpans(failing, "test", 1.0)
    for _ in range(3):
        spans.begin("one").end()
        assert failing.asked.acquire(timeout=10)
    spans.close(10)
    assert spans.counts == {"exported": 1, "failed": 2, "dropped": 0}
    assert [it for it in caplog.messages if it.startswith("spans-")] == ["spans-not-sent", "spans-sent"]


def test_steps_are_parts_of_a_run_and_nothing_without_one() -> None:
    with step("alone"):
        assert current() is None
    traced = Traced()
    with whole(traced.spans.begin("run")) as run:
        with step("part", {"xmppd.accounts": 3}):
            assert current() is not run
        with pytest.raises(KeyError), step("bad"):
            raise KeyError("name-of-somebody")
        with inside(run):
            run.end()
            assert current() is None
    assert traced.names() == ["run", "part", "bad"]
    assert said(traced.one("bad")) == {"error.type": "KeyError"}
    assert not traced.one("bad").events, "no text of an error"
