"""What the records of a domain say to clients, and what is wrong with them."""

import asyncio

import dns.message
import dns.rcode
import dns.rrset
import pytest
import pytest_asyncio

from xmppd.doctor.names import Dns, Service, Unresolved, look

PORTS = [(5222, False), (5223, True)]
HOST = ["93.184.216.34"]


class Records:
    """A resolver that knows what it is given; `aliases` are others' names."""

    def __init__(self, services=None, addresses=None, aliases=(), problem=""):
        self._services = services or {}
        self._addresses = addresses or {}
        self._aliases = aliases
        self._problem = problem

    async def services(self, name):
        if self._problem:
            raise Unresolved(self._problem)
        return self._services.get(name, [])

    async def addresses(self, name):
        return self._addresses.get(name, []), name in self._aliases


def records(*, starttls=(), direct=(), others=(), addresses=None, aliases=()):
    return Records(
        {
            "_xmpp-client._tcp.example.org": starttls,
            "_xmpps-client._tcp.example.org": direct,
            "_xmpp-server._tcp.example.org": others,
        },
        {"chat.example.org": HOST} if addresses is None else addresses,
        aliases,
    )


async def found(names, domain="example.org"):
    looked = await look(domain, names, PORTS)
    return [(one.level, one.found) for one in looked.advice], looked.targets


@pytest.mark.asyncio
async def test_good_records_send_clients_to_each_address():
    both = records(
        starttls=[Service("chat.example.org", 5222, 5, 0)], direct=[Service("chat.example.org", 5223, 5, 0)]
    )
    advice, targets = await found(both)
    assert advice == [("ok", "clients are sent to chat.example.org:5222, chat.example.org:5223")]
    assert [(target.port, target.direct, target.addresses) for target in targets] == [
        (5222, False, tuple(HOST)),
        (5223, True, tuple(HOST)),
    ]


@pytest.mark.asyncio
async def test_a_domain_without_records_has_the_fallback_of_the_rfc():
    advice, [target] = await found(Records(addresses={"example.org": HOST}))
    assert advice == [("note", "no SRV records: clients try example.org:5222")]
    assert (target.host, target.port, target.direct) == ("example.org", 5222, False)


@pytest.mark.asyncio
async def test_a_domain_without_anything_is_told_what_to_add():
    looked = await look("example.org", Records(), PORTS)
    [advice] = looked.advice
    assert (advice.level, advice.found) == ("error", "no SRV records, and no address")
    assert "_xmpps-client._tcp.example.org. SRV 0 5 5223 <host>." in advice.do
    assert not looked.targets


WRONG = {
    "a dot": (
        [Service("", 5222, 0, 0)],
        {},
        ("error", "_xmpp-client._tcp says that clients get no service here"),
    ),
    "no address": (
        [Service("chat.example.org", 5222, 0, 0)],
        {"addresses": {}},
        ("error", "chat.example.org has no address"),
    ),
    "an alias": (
        [Service("chat.example.org", 5222, 0, 0)],
        {"aliases": ["chat.example.org"]},
        ("warning", "chat.example.org is an alias (CNAME), which RFC 2782 forbids for a target"),
    ),
    "inside only": (
        [Service("chat.example.org", 5222, 0, 0)],
        {"addresses": {"chat.example.org": ["10.0.0.7"]}},
        ("warning", "chat.example.org is 10.0.0.7, where clients outside cannot get to"),
    ),
    "the other kind of TLS": (
        [Service("chat.example.org", 5223, 0, 0)],
        {},
        (
            "error",
            "chat.example.org:5223 is announced for STARTTLS, and the listener at 5223 does the other",
        ),
    ),
    "another port": (
        [Service("chat.example.org", 443, 0, 0)],
        {},
        ("note", "chat.example.org:443: this server does not listen at 443"),
    ),
}


@pytest.mark.asyncio
@pytest.mark.parametrize(("services", "more", "expected"), WRONG.values(), ids=WRONG)
async def test_a_record_that_does_not_lead_here_is_found(services, more, expected):
    advice, _ = await found(records(starttls=services, **more))
    assert expected in advice


@pytest.mark.asyncio
async def test_records_for_other_servers_lead_nowhere():
    names = records(
        starttls=[Service("chat.example.org", 5222, 5, 0)], others=[Service("chat.example.org", 5269, 5, 0)]
    )
    advice, _ = await found(names)
    assert ("note", "other servers are sent here, and this one talks to none") in advice


@pytest.mark.asyncio
@pytest.mark.parametrize("domain", ["localhost", "chat.test", "10.0.0.1", "[::1]", "chat"])
async def test_some_names_are_not_in_the_dns(domain):
    advice, targets = await found(Records(problem="nobody is asked"), domain)
    assert [level for level, _ in advice] == ["note"]
    assert not targets


@pytest.mark.asyncio
async def test_a_resolver_that_does_not_answer_is_an_error_with_its_reason():
    advice, targets = await found(Records(problem="no answer about example.org (SRV): timed out"))
    assert advice == [("error", "no answer about example.org (SRV): timed out")]
    assert not targets


# by a resolver over the net


class Zone(asyncio.DatagramProtocol):
    """A server of names that knows some records; what it is asked for under `broken` it cannot tell."""

    def __init__(self, *records):
        self._records = [dns.rrset.from_text(*record) for record in records]

    def connection_made(self, transport):
        self._transport = transport

    def datagram_received(self, data, address):
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        question = query.question[0]
        if "broken" in str(question.name):
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif not any(one.name == question.name for one in self._records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        name = question.name
        for record in self._records:
            if record.name == name and record.rdtype in (question.rdtype, 5):
                answer.answer.append(record)
                name = record[0].target if record.rdtype == 5 else name
        self._transport.sendto(answer.to_wire(), address)


@pytest_asyncio.fixture
async def resolver():
    zone = Zone(
        ("b.example.org.", 60, "IN", "CNAME", "a.example.org."),
        (
            "_xmpp-client._tcp.example.org.",
            60,
            "IN",
            "SRV",
            "20 1 5222 b.example.org.",
            "10 1 5222 a.example.org.",
        ),
        ("a.example.org.", 60, "IN", "A", "192.0.2.1"),
        ("a.example.org.", 60, "IN", "AAAA", "2001:db8::1"),
    )
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: zone, ("127.0.0.1", 0))
    yield Dns(*transport.get_extra_info("sockname"))
    transport.close()


@pytest.mark.asyncio
async def test_services_come_by_priority(resolver):
    assert await resolver.services("_xmpp-client._tcp.example.org") == [
        Service("a.example.org", 5222, 10, 1),
        Service("b.example.org", 5222, 20, 1),
    ]
    assert await resolver.services("_xmpps-client._tcp.example.org") == []


@pytest.mark.asyncio
async def test_addresses_are_of_both_families_and_aliases_are_seen(resolver):
    assert await resolver.addresses("a.example.org") == (["192.0.2.1", "2001:db8::1"], False)
    assert await resolver.addresses("b.example.org") == (["192.0.2.1", "2001:db8::1"], True)
    assert await resolver.addresses("c.example.org") == ([], False)


@pytest.mark.asyncio
async def test_a_failure_of_the_resolver_says_what_was_asked(resolver):
    with pytest.raises(Unresolved, match=r"no answer about broken.example.org \(A\)"):
        await resolver.addresses("broken.example.org")
