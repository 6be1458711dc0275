"""Board and alerts ask for what a server tells."""

import re

import pytest
from deployed import alerts, names_in, queries
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from xmppd.testing import World

LABELS = re.compile(r"(\w+)\{([^}]*)\}")
BY = re.compile(r"\bby \(([^)]*)\)")
OF_PROMETHEUS = {"job", "instance", "le"}


async def samples(world):
    """All of one answer: name -> the labels of each."""

    async def nothing(most):
        return b""

    answer = await world.app.routes.serve("GET", "/metrics", {}, nothing, "127.0.0.1")
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


@pytest.mark.asyncio
@pytest.mark.own_engine
async def test_every_query_is_about_what_is_told(redis_url: str) -> None:
    settings = {"cache": {"redis": redis_url, "prefix": "test-deploy"}}
    async with World(plugins=("archive", "ping", "webhooks"), nodes=2, settings=settings) as world:
        world.app.seeing.begin()
        alice = await world.login("alice")
        await world.login("bob")
        for _ in range(3):
            for app in world.apps:
                app.router.watch_next()
            await alice.send("<message to='bob@localhost' type='chat'><body>hi</body></message>")
            await world.settle()
        await alice.send("<iq type='get' id='1' to='localhost'><query xmlns='urn:nothing'/></iq>")
        await world.settle()
        world.app.reports.tell("login-failed", "192.0.2.1")
        told = await samples(world)
        world.app.seeing.end()
    for what, query in queries().items():
        if query == 'up{job="xmppd"} == 0':
            continue
        names = names_in(query)
        assert names, what
        assert names <= set(told), what
        for name, matchers in LABELS.findall(query):
            for label in re.findall(r"(\w+)=", matchers):
                known = {key for labels in told[name] for key in labels}
                assert label in known | OF_PROMETHEUS, (what, label)
        labels = {key for name in names for labels in told[name] for key in labels}
        for names_by in BY.findall(query):
            assert {name.strip() for name in names_by.split(",")} <= labels | OF_PROMETHEUS, what


@pytest.mark.asyncio
@pytest.mark.own_engine
async def test_events_that_alert_are_shown_before_they_happen() -> None:
    async with World(nodes=1) as world:
        told = await samples(world)
    events = {labels["event"] for labels in told["xmppd_log_events_total"]}
    for rule in alerts():
        for found in re.findall(r'xmppd_log_events_total\{event=~?"([^"]+)"', rule["expr"]):
            assert set(found.split("|")) <= events, rule["alert"]
        for check in re.findall(r'xmppd_ready\{check="([^"]+)"', rule["expr"]):
            assert check in ("listeners", "cluster", "draining", "store"), rule["alert"]
