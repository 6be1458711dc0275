"""Writes an account for Gajim by its own modules: gajim_account.py FOLDER JID PASSWORD PORT CERTIFICATE."""

import shutil
import sys

import gi

gi.require_version("Gdk", "3.0")

from gajim.common import app, configpaths  # noqa: E402
from gajim.common.settings import Settings  # noqa: E402

folder, jid, password, port, certificate = sys.argv[1:]
configpaths.set_config_root(folder)
configpaths.init()
configpaths.create_paths()
app.settings = Settings()
app.settings.init()
app.settings.set_app_setting("use_keyring", False)
app.settings.set_app_setting("remote_control", True)
app.settings.add_account(jid)
name, _, domain = jid.partition("@")
about = {"name": name, "hostname": domain, "password": password, "resource": "gajim"}
where = {
    "use_custom_host": True,
    "custom_host": "127.0.0.1",
    "custom_port": int(port),
    "custom_type": "START TLS",
}
for setting, value in {**about, **where, "savepass": True, "active": True, "autoconnect": True}.items():
    app.settings.set_account_setting(jid, setting, value)
app.settings.shutdown()
shutil.copy(certificate, configpaths.get("CERT_STORE") / "ours")
