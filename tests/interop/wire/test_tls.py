"""TLS as RFC 6120 5, RFC 7590 and XEP-0368 want it, down to the bytes."""

import contextlib
import datetime as dt
import hashlib
import signal
import ssl
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

MODES = ["starttls", "direct"]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def only(context, version):
    context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_these_versions_are_spoken(server, raw, mode, version):
    client = raw(mode, tls=only(server.tls(), version))
    client.login(server.account("alice"))
    assert client.socket.version() == {VERSIONS[0]: "TLSv1.2", VERSIONS[1]: "TLSv1.3"}[version]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("mode", MODES)
def test_tls_1_1_is_refused(server, raw, mode):
    old = only(server.tls(), ssl.TLSVersion.TLSv1_1)
    old.set_ciphers("ALL:@SECLEVEL=0")  # else the client would not even try
    with pytest.raises(ssl.SSLError, match="TLSV1_ALERT_PROTOCOL_VERSION"):
        raw(mode, tls=old)


@pytest.mark.parametrize("cipher", ["AES128-SHA", "AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA"])
def test_ciphers_without_forward_secrecy_or_integrity_are_refused(server, raw, cipher):
    weak = only(server.tls(), ssl.TLSVersion.TLSv1_2)
    weak.set_ciphers(f"{cipher}:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        raw("direct", tls=weak)


@pytest.mark.parametrize("protocol", ["xmpp-client", None])
def test_direct_tls_with_and_without_alpn(server, raw, protocol):
    context = ssl.create_default_context(cafile=server.certificate)
    if protocol:
        context.set_alpn_protocols(["h2", protocol])
    client = raw("direct", tls=context).login(server.account("alice"))
    assert client.socket.selected_alpn_protocol() == protocol


def test_nothing_but_tls_before_tls(server, raw):
    account = server.account("alice")
    client = raw()
    features = client.open()
    assert b"<required/>" in features
    assert b"mechanism" not in features
    answer, content = client.authenticate("PLAIN", f"\0{account.name}\0{account.password}")
    assert answer == "failure"
    assert b"encryption-required" in content


@pytest.mark.parametrize(
    "injected",
    [
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGEAYg==</auth>",
        "<iq type='get' id='injected'><query xmlns='jabber:iq:register'/></iq>",
        "<stream:stream to='localhost' version='1.0' xmlns:stream='http://etherx.jabber.org/streams'>",
        "<message to='half",
        "</stream:stream>",
    ],
    ids=["auth", "iq", "header", "torn", "end"],
)
def test_plain_text_behind_starttls_is_not_taken_for_encrypted(server, raw, injected):
    account = server.account("alice")
    client = raw()
    client.open()
    client.send(client.starttls_element + injected)
    client.expect("<proceed [^>]*/>")
    client.wrap(server.tls())
    before = len(client.seen)
    client.login(account)
    encrypted = client.seen[before:]
    assert encrypted.startswith(b"<?xml")  # an answer to our header, and nothing before
    assert b"injected" not in encrypted
    assert b"failure" not in encrypted


def test_tls_is_started_once_only(server, raw):
    client = raw("starttls")
    assert b"starttls" not in client.open()
    client.send(client.starttls_element)
    client.expect(r"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>\s*</stream:stream>")
    assert client.read_to_end() == b""


def test_no_starttls_where_tls_is_direct(raw):
    assert b"starttls" not in raw("direct").open()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_the_server_says_goodbye(server, raw, mode, version):
    client = raw(mode, tls=only(server.tls(), version)).login(server.account("alice"))
    client.send("</stream:stream>")
    assert client.read_to_end() == b"</stream:stream>"  # SSLEOFError without close_notify


@pytest.mark.parametrize("mode", MODES)
def test_an_error_is_followed_by_goodbye_too(server, raw, mode):
    client = raw(mode)
    client.open()
    client.send("<message/>")
    assert b"<not-authorized" in client.read_to_end()


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_a_goodbye_of_the_client_ends_its_session(server, raw, version):
    account = server.account("alice")
    watcher = raw("starttls").login(account)
    watcher.send("<presence/>")
    client = raw("starttls", tls=only(server.tls(), version)).login(account)
    client.send("<presence><status>here</status></presence>")
    watcher.expect("<status>here</status>")
    client.expect("<status>here</status>")
    client.socket.unwrap().close()  # waits for the server's own
    watcher.expect("<presence[^>]*type=.unavailable")


def test_plain_text_on_the_port_for_direct_tls_is_refused(raw):
    client = raw(port="direct")
    client.send("<?xml version='1.0'?><stream:stream to='localhost' version='1.0'>")
    assert b"<" not in client.read_to_end()


def test_nonsense_in_place_of_a_handshake_is_refused(raw):
    client = raw()
    client.open()
    client.send(client.starttls_element)
    client.expect("<proceed [^>]*/>")
    client.send("<stream:stream to='localhost'>")
    assert b"<" not in client.read_to_end()


def test_who_stops_halfway_is_closed(own_server, raw):
    server = own_server(auth={"login_seconds": 1})
    begin = time.monotonic()
    silent = [raw(server=server), raw(server=server, port="direct")]

    proceeded = raw(server=server)
    proceeded.open()
    proceeded.send(proceeded.starttls_element)
    proceeded.expect("<proceed [^>]*/>")

    torn = raw(server=server, port="direct")
    torn.send(client_hello()[:100])

    shaken = raw("direct", server=server)
    greeted = raw("starttls", server=server)
    greeted.open()

    for client in (*silent, proceeded, torn, shaken, greeted):
        with contextlib.suppress(ConnectionResetError):  # the TLS that was not finished
            client.read_to_end()
        assert time.monotonic() - begin >= 1
    assert b"<connection-timeout" in silent[0].seen
    assert b"<connection-timeout" in shaken.seen
    assert b"<connection-timeout" in greeted.seen
    server.wait_until(lambda: server.status()["connections"] == 0)  # though nobody of them hung up


def test_a_session_outlives_the_time_for_login(own_server, raw):
    server = own_server(auth={"login_seconds": 1})
    session = raw("starttls", server=server).login(server.account("alice"))
    stranger = raw(server=server)
    stranger.read_to_end()
    session.send("<iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
    session.expect("<iq [^>]*type=.result")


def test_certificates_are_chosen_by_name_and_replaced_at_sighup(own_server, raw, tmp_path):
    domains = ["one.example", "two.example"]
    for domain in domains:
        make_certificate(tmp_path, domain)
    files = {
        domain: {"certificate": str(tmp_path / f"{domain}.crt"), "key": str(tmp_path / f"{domain}.key")}
        for domain in domains
    }
    server = own_server(server={"domains": domains}, tls={"certificates": files})

    def shown(domain, mode):
        context = ssl.create_default_context(cafile=tmp_path / f"{domain}.crt")
        return raw(mode, server=server, domain=domain, tls=context)

    before = {(domain, mode): shown(domain, mode) for domain in domains for mode in MODES}
    make_certificate(tmp_path, "two.example")
    server.signal(signal.SIGHUP)
    server.wait_for("reloaded")
    for (domain, mode), old in before.items():
        new = shown(domain, mode)  # verified against the file as it is now
        assert (new.peer_certificate == old.peer_certificate) == (domain == "one.example")
        assert b"mechanisms" in old.open()  # who was connected stays so


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
@pytest.mark.parametrize("named", [None, "xmpp.hosting.example"], ids=["nothing", "the host"])
def test_the_domain_of_the_stream_chooses_where_the_hello_does_not(own_server, raw, tmp_path, named, version):
    """RFC 6120 5.4.3.1: `to` means what SNI does; the channel is then bound to what was shown."""
    domains = ["one.example", "two.example"]
    for domain in domains:
        make_certificate(tmp_path, domain)
    files = {
        domain: {"certificate": str(tmp_path / f"{domain}.crt"), "key": str(tmp_path / f"{domain}.key")}
        for domain in domains
    }
    server = own_server(server={"domains": domains}, tls={"certificates": files})
    for domain in domains:
        account = server.account("alice", domain)
        context = only(ssl.create_default_context(cafile=tmp_path / f"{domain}.crt"), version)
        context.check_hostname = False
        client = raw(server=server, domain=domain)
        client.open()
        client.send(client.starttls_element)
        client.expect("<proceed [^>]*/>")
        client.socket = context.wrap_socket(client.socket, server_hostname=named)  # trusts that one only
        client.open()
        bound = ("tls-server-end-point", hashlib.sha256(client.peer_certificate).digest())
        assert client.scram(account, "SCRAM-SHA-1-PLUS", bound)[0] == "success"


def client_hello():
    """The first flight of a handshake."""
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = ssl.create_default_context().wrap_bio(theirs, ours, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return ours.read()


def make_certificate(folder, domain):
    """A self-signed certificate and its key, as DOMAIN.crt and DOMAIN.key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domain)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / f"{domain}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / f"{domain}.key").write_bytes(private)
