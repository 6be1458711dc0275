"""SASL2, Bind2 and tokens (XEP-0388, 0386, 0484) over real TLS: bound to the connection as a client computes
it, and over a restart of the server.
"""

import base64
import hmac
import re

import pytest
from exporting import Exporting, default_of
from OpenSSL import SSL
from scramp import ScramClient
from scramp.core import CbName

AGENT = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>"
BIND = "<bind xmlns='urn:xmpp:bind:0'><tag>Phone</tag></bind>"
FAST = "<fast xmlns='urn:xmpp:fast:0'/>"
BINDINGS = [
    (SSL.TLS1_2_VERSION, "tls-unique", "HT-SHA-256-UNIQ"),
    (SSL.TLS1_3_VERSION, "tls-exporter", "HT-SHA-256-EXPR"),
]


@pytest.fixture(autouse=True)
def _any_binding(monkeypatch):
    """scramp would refuse tls-exporter, because ssl has no data for it."""
    known = CbName.SUPPORTED_TYPES | CbName.UNSUPPORTED_TYPES
    monkeypatch.setattr(CbName, "SUPPORTED_TYPES", known)
    monkeypatch.setattr(CbName, "UNSUPPORTED_TYPES", frozenset())


def b64(data):
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def authenticate(client, mechanism, initial, more):
    client.send(
        f"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'>"
        f"<initial-response>{b64(initial)}</initial-response>{AGENT}{BIND}{more}</authenticate>"
    )


def answer(client):
    """What came, and with a success all that is in it."""
    found = client.expect(r"<(success|challenge|failure) xmlns='urn:xmpp:sasl:2'>(.*?)</\1>")
    return found[1].decode(), found[2].decode()


def scram(client, account, binding, more):
    dance = ScramClient(["SCRAM-SHA-256-PLUS"], account.name, account.password, channel_binding=binding)
    authenticate(client, "SCRAM-SHA-256-PLUS", dance.get_client_first(), more)
    kind, content = answer(client)
    assert kind == "challenge", content
    dance.set_server_first(base64.b64decode(content).decode())
    client.send(f"<response xmlns='urn:xmpp:sasl:2'>{b64(dance.get_client_final())}</response>")
    kind, content = answer(client)
    assert kind == "success", content
    data = re.search("<additional-data>(.*?)</additional-data>", content)
    dance.set_server_final(base64.b64decode(data[1]).decode())
    return content


def identifier(content):
    return re.search("<authorization-identifier>(.*?)</authorization-identifier>", content)[1]


def by_token(client, account, mechanism, token, bound):
    proof = hmac.digest(token.encode(), b"Initiator" + bound, "sha256")
    authenticate(client, mechanism, account.name.encode() + b"\0" + proof, FAST)
    return answer(client)


@pytest.mark.parametrize(("version", "kind", "mechanism"), BINDINGS, ids=["1.2", "1.3"])
def test_a_token_bound_to_the_connection(own_server, raw, version, kind, mechanism):
    server = own_server()
    account = server.account("alice")
    client = raw("direct", server=server, tls=Exporting(version))
    features = client.open().decode()
    assert f"<fast xmlns='urn:xmpp:fast:0'><mechanism>{mechanism}</mechanism>" in features
    binding = (kind, default_of(client, kind))
    wanted = f"<request-token xmlns='urn:xmpp:fast:0' mechanism='{mechanism}'/>"
    content = scram(client, account, binding, wanted)
    jid, token = identifier(content), re.search("<token [^>]*token='([^']*)'", content)[1]
    assert jid.startswith(f"{account.jid}/Phone.")
    client.close()

    server.stop()
    server.start()
    client = raw("direct", server=server, tls=Exporting(version))
    client.open()
    kind_of, content = by_token(client, account, mechanism, token, default_of(client, kind))
    assert (kind_of, identifier(content)) == ("success", jid)
    client.send(f"<message to='{jid}' id='m'><body>to myself</body></message>")
    client.expect("<body>to myself</body>")

    stranger = raw("direct", server=server, tls=Exporting(version))
    stranger.open()
    kind_of, content = by_token(stranger, account, mechanism, token, default_of(client, kind))
    assert kind_of == "failure" and "not-authorized" in content, "it is bound to another connection"
    listed = server.run("token", "list", account.jid)
    assert [row["mechanism"] for row in listed] == [mechanism]
    server.stop()
    assert server.run("token", "revoke", account.jid) == [{"revoked": listed[0]["client"]}]
    server.start()
    client = raw("direct", server=server, tls=Exporting(version))
    client.open()
    assert by_token(client, account, mechanism, token, default_of(client, kind))[0] == "failure"


def test_the_whole_login_in_one_flight(server, raw):
    account = server.account("alice")
    client = raw("starttls")
    client.open()
    wanted = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>"
    authenticate(client, "PLAIN", f"\0{account.name}\0{account.password}", wanted)
    content = answer(client)[1]
    token = re.search("<token [^>]*token='([^']*)'", content)[1]
    again = raw("direct")
    proof = hmac.digest(token.encode(), b"Initiator", "sha256")
    again.send(
        f"<?xml version='1.0'?><stream:stream to='localhost' from='{account.jid}' version='1.0'"
        " xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-NONE'>"
        f"<initial-response>{b64(account.name.encode() + bytes(1) + proof)}</initial-response>"
        f"{AGENT}{BIND}{FAST}</authenticate><iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>"
    )
    again.expect("<bound xmlns='urn:xmpp:bind:0'></bound>.*<iq type='result' id='r'")
    client.expect("<conflict ")
