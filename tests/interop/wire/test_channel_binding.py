"""SCRAM bound to TLS by the certificate (RFC 5929 4, XEP-0440), with scramp as the client."""

import hashlib
import ssl

import pytest
from scramp import ScramClient

PLUS = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"]
MODES = ["starttls", "direct"]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def end_point(client):
    return hashlib.sha256(client.peer_certificate).digest()


def exchange(client, account, mechanism, binding):
    """SCRAM to its end; the name and the content of the last answer. The server must prove itself too."""
    scram = ScramClient([mechanism], account.name, account.password, channel_binding=binding)
    answer, content = client.authenticate(mechanism, scram.get_client_first())
    if answer == "challenge":
        scram.set_server_first(content.decode())
        answer, content = client.respond(scram.get_client_final())
    if answer == "success":
        scram.set_server_final(content.decode())
    return answer, content


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
    answer = exchange(client, account, mechanism, ("tls-server-end-point", end_point(client)))
    assert answer[0] == "success"
    client.bind()


def test_only_what_this_python_can_do_is_offered(server, raw):
    features = raw("starttls").open()
    assert (b"tls-exporter" in features) == hasattr(ssl.SSLObject, "export_keying_material")
    assert b"tls-unique" not in features


@pytest.mark.parametrize("mechanism", PLUS)
def test_a_certificate_in_between_is_noticed(server, raw, mechanism):
    """The client saw another certificate: that of somebody in the middle."""
    client, account = raw("starttls"), server.account("alice")
    client.open()
    other = hashlib.sha256(b"another certificate").digest()
    answer, content = exchange(client, account, mechanism, ("tls-server-end-point", other))
    assert answer == "failure"
    assert b"<not-authorized/>" in content
    # The same connection may try again, with what is right.
    assert exchange(client, account, mechanism, ("tls-server-end-point", end_point(client)))[0] == "success"


def test_a_type_that_was_not_offered_is_refused(server, raw):
    client, account = raw("starttls"), server.account("alice")
    client.open()
    assert exchange(client, account, PLUS[0], ("tls-unique", b"x" * 12))[0] == "failure"


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1"])
def test_mechanisms_taken_out_on_the_way_are_noticed(server, raw, mechanism):
    """RFC 5802 6: a client that could bind and was not offered it says `y`; but we did offer it."""
    client, account = raw("starttls"), server.account("alice")
    client.open()
    scram = ScramClient([mechanism], account.name, account.password, channel_binding=("tls-unique", b"x"))
    assert scram.get_client_first().startswith("y,")
    answer, content = exchange(client, account, mechanism, ("tls-server-end-point", end_point(client)))
    assert answer == "failure"
    assert b"<not-authorized/>" in content


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1"])
def test_without_binding(server, raw, mechanism):
    client, account = raw("starttls"), server.account("alice")
    client.open()
    assert exchange(client, account, mechanism, None)[0] == "success"
    client.bind()
