"""Spans of a real server and of a run of `migrate`, by OTLP to a real receiver."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from patience import PATIENCE
from ports import free_ports

from xmppd.migrating.rehearsal_client import LoginFailed, Place, RehearsalClient

pytestmark = pytest.mark.own_engine

PASSWORD = "hunter2-is-secret"
"""Of the accounts of `serve`."""

WITHOUT_LIBRARY = """
import sys
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError("No module named 'opentelemetry'", name="opentelemetry")
sys.meta_path.insert(0, Nowhere())
sys.argv[0] = "xmppd"
from xmppd.__main__ import main
main()
"""


class Receiver:
    """A collector: what it was sent."""

    def __init__(self) -> None:
        self.services: set[str] = set()
        self.spans: list[Any] = []
        self.address = ""
        self.is_stuck = False

    async def take(self, request: web.Request) -> web.Response:
        if self.is_stuck:
            await asyncio.sleep(2 * PATIENCE)
        sent = ExportTraceServiceRequest.FromString(await request.read())
        for resource in sent.resource_spans:
            about = {it.key: it.value.string_value for it in resource.resource.attributes}
            self.services.add(about["service.name"])
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return web.Response(content_type="application/x-protobuf")

    def names(self) -> Counter[str]:
        return Counter(span.name for span in self.spans)


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/v1/traces", made.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    made.address = f"http://{host}:{port}/v1/traces"
    yield made
    await runner.cleanup()


@pytest.mark.asyncio
async def test_a_server_sends_its_spans_and_those_of_its_last_moments(serve, receiver: Receiver) -> None:
    (port,) = free_ports(1)
    server = await serve(
        listen={"http": {"address": "127.0.0.1", "port": port}},
        tracing={"endpoint": receiver.address, "service_name": "chat"},
    )
    await server.login("alice")
    async with ClientSession() as http, http.get(f"http://127.0.0.1:{port}/metrics") as answer:
        text = await answer.text()
        assert 'xmppd_spans_total{outcome="dropped"} 0' in text
    server.signal(signal.SIGTERM)
    assert await server.ended() == 0
    names = receiver.names()
    assert receiver.services == {"chat"}
    assert (names["login"], names["login auth"], names["command user add"]) == (1, 1, 4)
    parents = {span.span_id: span.name for span in receiver.spans}
    assert {parents.get(span.parent_span_id) for span in receiver.spans if span.name == "login auth"} == {
        "login"
    }
    assert "alice" not in str(receiver.spans)


@pytest.mark.asyncio
@pytest.mark.parametrize("tls", ["starttls", "direct"])
async def test_a_handshake_and_each_step_of_a_login_is_a_part(serve, receiver: Receiver, tls: str) -> None:
    tracing = {"endpoint": receiver.address}
    server = await serve(listen={"c2s": [{"port": 0, "tls": tls}]}, tracing=tracing)
    async with RehearsalClient(Place("127.0.0.1", server.port, tls), "localhost") as client:
        with pytest.raises(LoginFailed):
            await client.log_in("alice", "wrong", "SCRAM-SHA-256")
        await client.log_in("alice", PASSWORD, "SCRAM-SHA-256")
        await client.bind()
        server.signal(signal.SIGTERM)
        assert await server.ended() == 0
    (login,) = [span for span in receiver.spans if span.name == "login"]
    about = {it.key: it.value.string_value for it in login.attributes}
    assert (about["xmppd.security"], about["xmppd.mechanism"]) == (tls, "SCRAM-SHA-256")
    parts = [span for span in receiver.spans if span.parent_span_id == login.span_id]
    parts.sort(key=lambda span: span.start_time_unix_nano)
    names = [span.name.removeprefix("login ") for span in parts]
    encrypting = ["starttls", "tls"] if tls == "starttls" else ["tls"]
    assert sorted(names[: len(encrypting)]) == encrypting
    assert names[len(encrypting) :] == ["auth", "response", "auth", "response", "iq"]
    outcomes = [
        it.value.string_value for span in parts for it in span.attributes if it.key == "xmppd.outcome"
    ]
    assert outcomes == ["not-authorized", "success"]
    assert all(login.start_time_unix_nano <= span.start_time_unix_nano for span in parts)
    assert all(span.end_time_unix_nano <= login.end_time_unix_nano for span in parts)


@pytest.mark.asyncio
async def test_a_collector_that_does_not_answer_delays_no_stop(serve, receiver: Receiver) -> None:
    receiver.is_stuck = True
    server = await serve(tracing={"endpoint": receiver.address})
    client = await server.login("alice")
    started = time.monotonic()
    server.signal(signal.SIGTERM)
    await client.end()
    client.hang_up()
    assert await server.ended() == 0
    assert time.monotonic() - started < PATIENCE
    assert server.records("spans-left"), "they had a second"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "x.yaml"
    file.write_text(f"server: {{data_folder: {tmp_path}/data}}\nauth: {{iterations: 4096}}\n")
    return file


def run(*words: str, program: str = "") -> "subprocess.CompletedProcess[str]":
    start = ["-c", program] if program else ["-m", "xmppd"]
    return subprocess.run(
        [sys.executable, *start, *words], check=False, capture_output=True, text=True, timeout=60
    )


@pytest.mark.asyncio
async def test_runs_of_migrate_have_spans_of_their_steps(config: Path, receiver: Receiver) -> None:
    with config.open("a") as file:
        file.write(f"tracing: {{endpoint: '{receiver.address}'}}\n")
    source = config.parent / "source.jsonl"
    source.write_text(json.dumps({"account": "user0@localhost", "password": "secret password"}) + "\n")
    for words in (("import", str(source), "--create"), ("verify", str(source))):
        done = await asyncio.to_thread(run, "migrate", *words, "--config", str(config))
        assert done.returncode == 0, done.stderr
    names = receiver.names()
    assert names["migrate import"] == names["import batch"] == names["ask migrate apply"] == 1
    assert names["migrate verify"] == names["verify batch"] == names["verify pairs"] == 1
    by_id = {span.span_id: span for span in receiver.spans}
    (applied,) = [span for span in receiver.spans if span.name == "ask migrate apply"]
    batch = by_id[applied.parent_span_id]
    assert (batch.name, by_id[batch.parent_span_id].name) == ("import batch", "migrate import")
    assert "user0" not in str(receiver.spans)


@pytest.mark.parametrize("words", [("serve",), ("check-config",), ("migrate", "import", "x.jsonl")])
def test_a_missing_library_is_one_sentence(config: Path, words: tuple[str, ...]) -> None:
    with config.open("a") as file:
        file.write("tracing:\n  endpoint: http://127.0.0.1:4318/v1/traces\n")
    done = run(*words, "--config", str(config), program=WITHOUT_LIBRARY)
    assert done.returncode == 78, done.stderr
    said = done.stdout + done.stderr
    assert "pip install 'xmppd[otel]'" in said
    assert f"{config}:4:13" in said


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("endpoint", "ftp://collector", "must be an http:// or https:// url"),
        ("endpoint", "collector:4318", "must be an http:// or https:// url"),
        ("endpoint", "http://[oops", "tracing.endpoint"),
        ("ratio", "1.5", "tracing.ratio"),
        ("service_name", "''", "tracing.service_name"),
        ("accounts", "maybe", "tracing.accounts"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(config: Path, key: str, value: str, why: str) -> None:
    with config.open("a") as file:
        file.write(f"tracing:\n  {key}: {value}\n")
    done = run("check-config", "--config", str(config))
    assert done.returncode == 78
    said = done.stdout + done.stderr
    assert f"{config}:4:{len(key) + 5}" in said and why in said


def test_a_server_without_a_collector_loads_no_library() -> None:
    code = "import sys, xmppd.serve, xmppd.admin.cli; print([n for n in sys.modules if 'opentelemetry' in n])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
