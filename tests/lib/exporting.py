"""TLS of pyOpenSSL, which tells what the ssl module does not: both bindings to a connection."""

from typing import Any

from OpenSSL import SSL


class Exporting:
    """In place of an `ssl.SSLContext`, for one version of TLS."""

    def __init__(self, version: int) -> None:
        self.context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self.context.set_min_proto_version(version)
        self.context.set_max_proto_version(version)

    def wrap_socket(self, plain: Any, *, server_hostname: str, suppress_ragged_eofs: bool) -> Any:
        plain.setblocking(True)
        connection = SSL.Connection(self.context, plain)
        connection.set_tlsext_host_name(server_hostname.encode())
        connection.set_connect_state()
        connection.do_handshake()
        return connection


def default_of(client: Any, kind: str) -> bytes:
    """The data of the binding that a client takes by the version of TLS."""
    data: bytes
    if kind == "tls-unique":
        data = client.socket.get_finished()
    else:
        data = client.socket.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
    return data
