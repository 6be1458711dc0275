"""SCRAM bound to TLS (RFC 5802 6, 5929, 9266, XEP-0440), with scramp as the client, over ssl and pyOpenSSL.

What clients take that do not ask: tls-exporter on TLS 1.3, tls-unique on TLS 1.2.
"""

import hashlib
import ssl

import pytest
from exporting import Exporting, default_of
from OpenSSL import SSL
from scramp import ScramClient
from scramp.core import CbName

PLUS = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"]
MODES = ["starttls", "direct"]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
DEFAULTS = [(SSL.TLS1_2_VERSION, "tls-unique"), (SSL.TLS1_3_VERSION, "tls-exporter")]


@pytest.fixture(autouse=True)
def _any_binding(monkeypatch):
    """scramp would refuse tls-exporter, because ssl has no data for it."""
    known = CbName.SUPPORTED_TYPES | CbName.UNSUPPORTED_TYPES
    monkeypatch.setattr(CbName, "SUPPORTED_TYPES", known)
    monkeypatch.setattr(CbName, "UNSUPPORTED_TYPES", frozenset())


def end_point(client):
    return hashlib.sha256(client.peer_certificate).digest()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mechanism", PLUS)
@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_binding_to_the_certificate(server, raw, mode, mechanism, version):
    context = server.tls()
    context.minimum_version = context.maximum_version = version
    client, account = raw(mode, tls=context), server.account("alice")
    features = client.open().decode()
    assert f"<mechanism>{mechanism}</mechanism>" in features
    assert "<channel-binding type='tls-server-end-point'/>" in features
    answer = client.scram(account, mechanism, ("tls-server-end-point", end_point(client)))
    assert answer[0] == "success"
    client.bind()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mechanism", PLUS)
@pytest.mark.parametrize(("version", "kind"), DEFAULTS, ids=["1.2", "1.3"])
def test_binding_to_the_connection(server, raw, mode, mechanism, version, kind):
    client, account = raw(mode, tls=Exporting(version)), server.account("alice")
    features = client.open().decode()
    assert f"<mechanism>{mechanism}</mechanism>" in features
    assert f"<channel-binding type='{kind}'/><channel-binding type='tls-server-end-point'/>" in features
    assert client.scram(account, mechanism, (kind, default_of(client, kind)))[0] == "success"
    client.bind()


@pytest.mark.parametrize(("version", "kind"), DEFAULTS, ids=["1.2", "1.3"])
def test_somebody_in_between_is_noticed(server, raw, version, kind):
    """The client sees another connection than the server."""
    client, account = raw("starttls", tls=Exporting(version)), server.account("alice")
    other = raw("starttls", tls=Exporting(version))
    client.open()
    answer, content = client.scram(account, PLUS[0], (kind, default_of(other, kind)))
    assert answer == "failure"
    assert b"<not-authorized/>" in content
    assert client.scram(account, PLUS[0], (kind, default_of(client, kind)))[0] == "success"


@pytest.mark.parametrize(("version", "kind"), DEFAULTS, ids=["1.2", "1.3"])
def test_the_binding_of_the_other_version_is_not_there(server, raw, version, kind):
    client, account = raw("starttls", tls=Exporting(version)), server.account("alice")
    other = next(name for _, name in DEFAULTS if name != kind)
    assert other not in client.open().decode()
    assert client.scram(account, PLUS[0], (other, default_of(client, other)))[0] == "failure"


@pytest.mark.parametrize("mechanism", PLUS)
def test_a_certificate_in_between_is_noticed(server, raw, mechanism):
    """The client saw another certificate: that of somebody in the middle."""
    client, account = raw("starttls"), server.account("alice")
    client.open()
    other = hashlib.sha256(b"another certificate").digest()
    answer, content = client.scram(account, mechanism, ("tls-server-end-point", other))
    assert answer == "failure"
    assert b"<not-authorized/>" in content
    # The same connection may try again, with what is right.
    assert client.scram(account, mechanism, ("tls-server-end-point", end_point(client)))[0] == "success"


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1"])
def test_mechanisms_taken_out_on_the_way_are_noticed(server, raw, mechanism):
    """RFC 5802 6: a client that could bind and was not offered it says `y`; but we did offer it."""
    client, account = raw("starttls"), server.account("alice")
    client.open()
    scram = ScramClient([mechanism], account.name, account.password, channel_binding=("tls-unique", b"x"))
    assert scram.get_client_first().startswith("y,")
    answer, content = client.scram(account, mechanism, ("tls-server-end-point", end_point(client)))
    assert answer == "failure"
    assert b"<not-authorized/>" in content


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1"])
def test_without_binding(server, raw, mechanism):
    client, account = raw("starttls"), server.account("alice")
    client.open()
    assert client.scram(account, mechanism, None)[0] == "success"
    client.bind()
