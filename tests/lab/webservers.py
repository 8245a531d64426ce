"""Web servers in front of a relay, with the files of contrib/ as they are and where they belong: /etc, /run and
/var/log are the server's own."""

import shutil
from pathlib import Path

import trustme
from lab.laboratory import PORT, Laboratory
from lab.programs import PASSWORD, Program, RelayProgram, environment

CONTRIB = Path(__file__).parent.parent.parent / "contrib"
NAME = "vpn.example.org"
"""The hub's, in all of these files."""
PUBLIC_URL = f"wss://{NAME}"
NETWORKS = {"home": 65, "office": 66}
"""Beside that at /: the second number of their pools."""
AUTHORITY = "authority.pem"
"""In the folder: who has signed the certificate."""
HOSTS = "hosts"
"""In the folder: a file of hosts that has the name."""
NAMED = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"')
"""Before a member's command: it knows the name. The file follows."""
AS_INSTALLED = {
    "nginx": (
        {"nginx.conf": "nginx/nginx.conf", "nginx-candy.conf": "nginx/candy.conf"},
        "exec nginx -g 'daemon off;'",
    ),
    "haproxy": ({"haproxy.cfg": "haproxy/haproxy.cfg"}, "exec haproxy -db -f /etc/haproxy/haproxy.cfg"),
    "caddy": ({"Caddyfile": "caddy/Caddyfile"}, "HOME=/etc/caddy exec caddy run --config /etc/caddy/Caddyfile"),
}
CADDY_KEEPS = f"caddy/.local/share/caddy/certificates/acme-v02.api.letsencrypt.org-directory/{NAME}"
"""Where Caddy has a certificate that it was given before: nobody gives it one here."""
PREPARED = """
set -e
mount --bind {etc} /etc
mount -t tmpfs none /run
mount --bind {log} /var/log
{command}
"""
"""In a mount namespace."""


def installed(laboratory: Laboratory, folder: Path, name: str, pool: str = "10.64.0.0/24") -> RelayProgram:
    """A relay with three networks on the hub, behind a web server.

    Args:
        folder: for files; `log` in it is the server's /var/log.
        pool: of the network at /.
    """
    files, command = AS_INSTALLED[name]
    etc, log = folder / "etc", folder / "log"
    for place in ("ssl", "nginx", "haproxy", CADDY_KEEPS):
        (etc / place).mkdir(parents=True)
    (log / "nginx").mkdir(parents=True)
    for known in ("passwd", "group", "nsswitch.conf"):
        shutil.copy(Path("/etc", known), etc)
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    for file, place in files.items():
        shutil.copy(CONTRIB / file, etc / place)
    authority = trustme.CA()
    certificate = authority.issue_cert(NAME)
    (etc / f"ssl/{NAME}.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    (etc / f"ssl/{NAME}.key").write_bytes(certificate.private_key_pem.bytes())
    certificate.private_key_and_cert_chain_pem.write_to_path(etc / f"ssl/{NAME}.both.pem")
    authority.cert_pem.write_to_path(folder / AUTHORITY)
    kept = etc / CADDY_KEEPS
    shutil.copy(etc / f"ssl/{NAME}.pem", kept / f"{NAME}.crt")
    shutil.copy(etc / f"ssl/{NAME}.key", kept)
    (kept / f"{NAME}.json").write_text(f'{{"sans": ["{NAME}"]}}')
    (folder / HOSTS).write_text(f"10.0.0.1 {NAME}\n")
    settings = folder / "server.toml"
    tables = (f'[network."/{path}"]\npassword = "of {path}"\ndhcp = "10.{n}.0.0/24"\n' for path, n in NETWORKS.items())
    settings.write_text(f'password = "{PASSWORD}"\ndhcp = "{pool}"\n' + "".join(tables))
    settings.chmod(0o600)
    with laboratory.hub:
        flags = ["-c", str(settings), "--public-url", PUBLIC_URL, "--trusted-proxy", "127.0.0.1"]
        relay = laboratory.stack.enter_context(RelayProgram(folder / "relay", *flags, port=PORT))
        argv = ["unshare", "--mount", "sh", "-c", PREPARED.format(etc=etc, log=log, command=command)]
        laboratory.enter(Program(name, argv, environment(folder)))
    return relay
