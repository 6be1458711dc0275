// @xmpp/client, driven by lines of JSON: see tests/lib/driven.py. Its argument is the folder in which it is installed.

import { webcrypto } from "node:crypto";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

globalThis.crypto ??= webcrypto; // which Debian 12's node has under its other name only

const packages = pathToFileURL(`${process.argv[2]}/node_modules/`);
const load = (path) => import(new URL(path, packages));
const { client, xml } = await load("@xmpp/client/index.js");
const { default: parse } = await load("@xmpp/xml/lib/parse.js");
const { default: clone } = await load("ltx/lib/clone.js");

function tell(event, more = {}) {
  process.stdout.write(JSON.stringify({ event, ...more }) + "\n");
}

// With the namespace that comes from the stream.
function text(element) {
  const copy = clone(element);
  const [, prefix] = element.name.split(":").reverse();
  copy.attrs[prefix ? `xmlns:${prefix}` : "xmlns"] = element.getNS() ?? "jabber:client";
  return copy.toString();
}

let xmpp;

const orders = {
  settings({ port, domain, username, password, resource, agent }) {
    const userAgent = xml("user-agent", { id: agent });
    const service = `xmpp://127.0.0.1:${port}`;
    xmpp = client({ service, domain, resource, username, password, userAgent });
    xmpp.reconnect.delay = 100;
    xmpp.timeout = 20_000;
    xmpp.on("online", (jid) => tell("online", { jid: jid.toString() }));
    xmpp.on("disconnect", () => tell("disconnected"));
    xmpp.on("error", (error) => tell("error", { error: String(error) }));
    xmpp.on("element", (element) => tell("received", { xml: text(element) }));
    xmpp.on("send", (element) => tell("sent", { xml: text(element) }));
    xmpp.streamManagement.on("resumed", () => tell("resumed", { jid: xmpp.jid.toString() }));
    xmpp.streamManagement.on("ack", (stanza) => tell("acknowledged", { xml: text(stanza) }));
    xmpp.streamManagement.on("fail", (stanza) => tell("failed", { xml: text(stanza) }));
  },
  start: () => xmpp.start(),
  stop: () => xmpp.stop(),
  send: ({ xml }) => xmpp.send(parse(xml)),
};

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  // Not awaited: what is to be sent meanwhile may come before that is done.
  Promise.resolve(orders[order.do](order)).catch((error) => tell("error", { error: String(error) }));
}
process.exit(0);
