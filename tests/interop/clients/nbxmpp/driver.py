"""nbxmpp, the engine of Gajim, driven by lines of JSON: see tests/lib/driven.py. GLib is Debian's."""

import json
import sys
import threading

from gi.repository import Gio, GLib
from nbxmpp.client import Client
from nbxmpp.const import ConnectionProtocol, ConnectionType
from nbxmpp.protocol import JID, Message, Protocol
from nbxmpp.structs import StanzaHandler


def tell(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


class Driver:
    def __init__(self):
        self.client = Client()
        for signal in (
            "connected",
            "resume-successful",
            "resume-failed",
            "disconnected",
            "connection-failed",
        ):
            self.client.subscribe(signal, self.changed)
        for signal, event in (("stanza-received", "received"), ("stanza-sent", "sent")):
            self.client.subscribe(signal, lambda *given, event=event: tell(event, xml=str(given[2])))
        self.client.register_handler(StanzaHandler(name="message", callback=self.understood, priority=100))

    def changed(self, client, signal, *_):
        jid = client.get_bound_jid()
        tell(signal, jid=str(jid) if jid else "", error=[str(part) for part in client.get_error() if part])

    def understood(self, _client, _stanza, properties):
        tell(
            "understood",
            sender=str(properties.from_),
            body=properties.body,
            carbon=properties.carbon and properties.carbon.type,
            archived=properties.mam and properties.mam.id,
            ids=[found.id for found in properties.stanza_ids],
            marker=properties.marker and list(properties.marker),
            error=properties.error and properties.error.condition,
        )

    # what it may be told to do

    def settings(self, port, domain, username, password, resource, certificate):
        self.client.set_domain(domain)
        self.client.set_username(username)
        self.client.set_password(password)
        self.client.set_resource(resource)
        self.client.set_accepted_certificates([Gio.TlsCertificate.new_from_file(certificate)])
        address = f"127.0.0.1:{port}"
        self.client.set_custom_host(address, ConnectionProtocol.TCP, ConnectionType.START_TLS)

    def start(self):
        self.client.connect()

    def stop(self):
        self.client.disconnect()

    def send(self, xml):
        self.client.send_stanza(Protocol(node=xml))

    def history(self, after, most):
        own = JID.from_string(str(self.client.get_bound_jid().bare))
        task = self.client.get_module("MAM").make_query(own, queryid="q", after=after or None, max_=most)
        task.add_done_callback(self.page)

    def page(self, task):
        found = task.finish()
        tell("page", complete=found.complete, last=found.rsm.last)

    def block(self, jid):
        task = self.client.get_module("Blocking").block([JID.from_string(jid)])
        task.add_done_callback(lambda task: tell("blocked", done=bool(task.finish())), weak=False)

    def blocklist(self):
        task = self.client.get_module("Blocking").request_blocking_list()
        task.add_done_callback(
            lambda task: tell("blocklist", jids=sorted(map(str, task.finish()))), weak=False
        )

    def displayed(self, to, id):
        marker = Message(to=to, typ="chat")
        marker.setMarker("displayed", id)
        self.client.send_stanza(marker)


driver = Driver()
loop = GLib.MainLoop()


def obey(line):
    order = json.loads(line)
    getattr(driver, order.pop("do"))(**order)


def listen():
    for line in sys.stdin:
        GLib.idle_add(obey, line)
    GLib.idle_add(loop.quit)


threading.Thread(target=listen, daemon=True).start()
loop.run()
