"""Logging in with slixmpp: mechanisms, TLS, certificates, resources."""

import ssl

import pytest

from xmppd.config import load
from xmppd.core.accounts import ACCOUNT, TABLES
from xmppd.core.credentials import NO_KEYS, columns_of
from xmppd.engines import store_of
from xmppd.stream.scram import derive_keys

MECHANISMS = ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"]


@pytest.mark.asyncio
@pytest.mark.parametrize("direct_tls", [False, True], ids=["starttls", "direct"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_each_mechanism_logs_in(server, client, mechanism, direct_tls):
    alice = client(server.account("alice"), direct_tls=direct_tls)
    alice.use_mechanism(mechanism)
    await alice.login()
    assert alice.mechanism == mechanism
    assert alice.tls.version() == "TLSv1.3"
    await alice.expect_nothing()


@pytest.mark.asyncio
async def test_left_alone_it_takes_the_best_that_it_can(server, client):
    alice = await client(server.account("alice")).login()
    assert alice.mechanism == "SCRAM-SHA-256"
    assert alice.refusals == []


@pytest.mark.asyncio
@pytest.mark.parametrize("direct_tls", [False, True], ids=["starttls", "direct"])
async def test_on_tls_1_2_it_binds_by_tls_unique_without_being_asked(server, client, direct_tls):
    alice = client(server.account("alice"), direct_tls=direct_tls)
    alice.xmpp.ssl_context.maximum_version = ssl.TLSVersion.TLSv1_2
    await alice.login()
    assert alice.tls.version() == "TLSv1.2"
    assert alice.mechanism == "SCRAM-SHA-256-PLUS"
    assert alice.refusals == []


@pytest.mark.asyncio
async def test_direct_tls_agrees_on_the_protocol(server, client):
    alice = await client(server.account("alice"), direct_tls=True).login()
    assert alice.tls.selected_alpn_protocol() == "xmpp-client"


@pytest.mark.asyncio
@pytest.mark.parametrize("direct_tls", [False, True], ids=["starttls", "direct"])
async def test_the_certificate_names_the_domain(server, client, direct_tls):
    alice = await client(server.account("alice"), direct_tls=direct_tls).login()
    names = alice.tls.getpeercert()["subjectAltName"]
    assert ("DNS", "localhost") in names


@pytest.mark.asyncio
async def test_who_does_not_trust_the_certificate_goes(server, client):
    alice = client(server.account("alice"))
    alice.xmpp.ssl_context = ssl.create_default_context()
    with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"):
        await alice.bind()


@pytest.mark.asyncio
@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_a_wrong_password_is_refused(server, client, mechanism):
    account = server.account("alice")
    alice = client(account._replace(password="wrong"))
    alice.use_mechanism(mechanism)
    assert await alice.refused() == ["not-authorized"]


@pytest.mark.asyncio
@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_an_unknown_user_is_refused_alike(server, client, mechanism):
    nobody = client(server.account("alice")._replace(jid="nobody@localhost"))
    nobody.use_mechanism(mechanism)
    assert await nobody.refused() == ["not-authorized"]


@pytest.mark.asyncio
async def test_a_new_password_from_the_command_line_replaces_the_old(server, client):
    old = server.account("alice")
    new = old._replace(password="a new one")
    server.run("user", "passwd", old.jid, "--password-stdin", given=new.password)
    assert set(await client(old).refused()) == {"not-authorized"}
    await client(new).login()


async def come_from_elsewhere(server, account, *hashes):
    """Replace an account's keys by imported ones of these hashes, while no server runs."""
    server.stop()
    store = store_of(load(server.file))
    await store.open(TABLES)
    keys = {
        name: derive_keys(name, account.password, b"elsewhere's salt, a long one", 4096) for name in hashes
    }
    columns = {**NO_KEYS, **columns_of(keys), "imported": True}
    row = await store.get(ACCOUNT, (account.jid,))
    assert await store.put_if(ACCOUNT, {"account": account.jid, **columns}, {"changed": row["changed"]})
    await store.close()
    server.start()


@pytest.mark.asyncio
async def test_imported_keys_of_sha_1(own_server, client):
    server = own_server()
    account = server.account("alice")
    await come_from_elsewhere(server, account, "sha1")
    alice = await client(account, server=server).login()
    assert alice.mechanism == "SCRAM-SHA-1"
    assert set(alice.refusals) == {"not-authorized"}
    alice = client(account, server=server)
    alice.use_mechanism("PLAIN")
    await alice.login()
    completed = ["SCRAM-SHA-256", "SCRAM-SHA-1"]
    server.wait_until(lambda: server.run("user", "show", account.jid)["mechanisms"] == completed)
    alice = await client(account, server=server).login()
    assert (alice.mechanism, alice.refusals) == ("SCRAM-SHA-256", [])


@pytest.mark.asyncio
async def test_imported_keys_of_sha_512(own_server, client):
    offered = ["SCRAM-SHA-512", "SCRAM-SHA-512-PLUS", "SCRAM-SHA-1", "PLAIN"]
    server = own_server(auth={"mechanisms": offered, "iterations": 4096})
    account = server.account("alice")
    await come_from_elsewhere(server, account, "sha512")
    alice = await client(account, server=server).login()
    assert (alice.mechanism, alice.refusals) == ("SCRAM-SHA-512", [])
    bob = await client(server.account("bob"), server=server).login()
    assert (bob.mechanism, bob.refusals) == ("SCRAM-SHA-512", [])


@pytest.mark.asyncio
async def test_anonymous_users_get_an_address(own_server, client):
    server = own_server(auth={"anonymous": True})
    guest, other = [client(server.account("x"), jid="localhost", server=server) for _ in range(2)]
    for one in (guest, other):
        one.use_mechanism("ANONYMOUS")
        await one.login()
    assert guest.bare != other.bare
    guest.xmpp.send_message(mto=other.jid, mbody="hello from nobody")
    assert (await other.message(guest))["body"] == "hello from nobody"


@pytest.mark.asyncio
async def test_resources_are_granted_or_made(server, client):
    account = server.account("alice")
    named, *unnamed = client(account, "desk"), client(account), client(account)
    for one in (named, *unnamed):
        await one.bind()
    assert named.jid == f"{account.jid}/desk"
    resources = {one.xmpp.boundjid.resource for one in unnamed}
    assert len(resources - {"", "desk"}) == 2


@pytest.mark.asyncio
async def test_a_second_login_with_a_resource_ends_the_first(server, client):
    account = server.account("alice")
    bob = await client(server.account("bob")).login()
    first, second = client(account, "desk"), client(account, "desk")
    await first.login()
    await first.befriend(bob)
    await second.login()
    assert await first.stream_error() == "conflict"
    assert second.jid == first.jid
    await bob.presence(first, "unavailable")
    await bob.presence(second)
    bob.xmpp.send_message(mto=second.jid, mbody="to the one that stayed")
    assert (await second.message(bob))["body"] == "to the one that stayed"
