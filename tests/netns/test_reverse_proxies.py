"""Members behind a reverse proxy on the relay's machine, nginx or haproxy: each has a source of its own, and says what
is wrong when nginx is in the way. And the files of contrib/, Caddy's too, as they are."""

import select
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from lab.laboratory import PORT, Laboratory
from lab.member import Member
from lab.namespaces import Host
from lab.programs import PASSWORD, PATIENCE_S, Program, RelayProgram, environment
from lab.traffic import ping
from lab.webservers import AS_INSTALLED, AUTHORITY, HOSTS, NAMED, NETWORKS, PUBLIC_URL, installed

pytestmark = pytest.mark.netns

PUBLIC = 8080
"""The proxy's port."""
NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 10.0.0.1:{public};
        location / {{
            proxy_pass http://127.0.0.1:{port};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header Forwarded "";
        }}
    }}
}}
"""
HAPROXY = """
global
    hard-stop-after 100ms
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
frontend public
    bind 10.0.0.1:{public}
    http-request del-header X-Forwarded-For
    http-request add-header Forwarded for=%[src]
    default_backend relay
backend relay
    server relay 127.0.0.1:{port}
"""


COMMANDS = {"nginx": (NGINX, ["nginx", "-e", "stderr", "-p"]), "haproxy": (HAPROXY, ["haproxy", "-db"])}


def start(laboratory: Laboratory, tmp_path: Path, name: str, change: tuple[str, str] = ("", "")) -> RelayProgram:
    """A relay on loopback, behind the proxy that it trusts, of whose settings one line may be another."""
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}: run scripts/bootstrap.sh tools")
    configuration = tmp_path / f"{name}.conf"
    template, command = COMMANDS[name]
    settings = template.format(folder=tmp_path, public=PUBLIC, port=PORT)
    assert change[0] in settings
    configuration.write_text(settings.replace(*change, 1))
    flags = ["--trusted-proxy", "127.0.0.1", "--unauthenticated-per-source", "2", "--auth-timeout", "600"]
    with laboratory.hub:
        relay = laboratory.stack.enter_context(RelayProgram(tmp_path / "relay", *flags, port=PORT))
        where = [str(tmp_path), "-c"] if name == "nginx" else ["-f"]
        laboratory.enter(Program(name, [*command, *where, str(configuration)], environment(tmp_path)))
    return relay


@pytest.fixture(params=["nginx", "haproxy"])
def relay(laboratory: Laboratory, tmp_path: Path, request: pytest.FixtureRequest) -> RelayProgram:
    return start(laboratory, tmp_path, request.param)


def forged(host: Host) -> Member:
    """A member's connection whose sender claims to be somebody else."""
    with host:
        opened = socket.create_connection(("10.0.0.1", PUBLIC), PATIENCE_S)
    return Member(opened, headers=["X-Forwarded-For: 198.51.100.9", "Forwarded: for=198.51.100.9"])


def test_members_are_told_apart(laboratory: Laboratory, relay: RelayProgram) -> None:
    url = f"ws://10.0.0.1:{PUBLIC}"
    here, there = (laboratory.client(url=url) for _ in range(2))
    for client in (here, there):
        address = client.connected()
        relay.wait_for(rf"INFO {client.host.address}: logged in as {address} \(")
    assert " 0% packet loss" in ping(here.host, there.connected(), "-c", "5", "-i", "0.02")


def test_each_has_a_limit_of_its_own(laboratory: Laboratory, relay: RelayProgram, stack: ExitStack) -> None:
    """What it claims to be does not matter."""
    # The proxy is ready when this one is in.
    laboratory.client(url=f"ws://10.0.0.1:{PUBLIC}").connected()
    one, other = laboratory.host(), laboratory.host()
    bystander = stack.enter_context(forged(other))
    crowd = [stack.enter_context(forged(one)) for _ in range(3)]
    relay.wait_for(f"DEBUG {one.address}: too many connections that have not authenticated")
    [gone] = select.select([member.socket for member in crowd], [], [], PATIENCE_S)[0]
    assert gone.recv(1) == b""
    bystander.log_in(str(bystander.ask().ip))
    assert not any("198.51.100.9" in line for line in relay.lines)


def test_nginx_with_http_1_0(laboratory: Laboratory, tmp_path: Path) -> None:
    """F13: the relay says why, and the member says what nginx needs."""
    start(laboratory, tmp_path, "nginx", ("proxy_http_version 1.1", "proxy_http_version 1.0"))
    laboratory.client(url=f"ws://10.0.0.1:{PUBLIC}").wait_for(
        r'HTTP 400 Bad Request \("An upgrade is a GET of HTTP/1\.1\."\): '
        "a web server in front speaks HTTP/1.0: nginx needs `proxy_http_version 1.1;`; trying again"
    )


def test_nginx_with_a_password(laboratory: Laboratory, tmp_path: Path) -> None:
    """F8 and F13: in UTF-8, and a wrong one is told from a missing one."""
    users = tmp_path / "users"
    users.write_text("alice:{PLAIN}pé€\n", "utf-8")
    directives = f'auth_basic "relay"; auth_basic_user_file {users}; proxy_pass'
    start(laboratory, tmp_path, "nginx", ("proxy_pass", directives))
    host = laboratory.host()
    for user, said in (
        ("", "a web server in front asks for a user and password: put them into the URL"),
        ("alice:wrong@", "a web server in front does not take the user and password of the URL"),
    ):
        client = laboratory.client(host=host, url=f"ws://{user}10.0.0.1:{PUBLIC}")
        client.wait_for(f"HTTP 401 Unauthorized .*: {said}")
        client.close()
    laboratory.client(host=host, url=f"ws://alice:p%C3%A9%E2%82%AC@10.0.0.1:{PUBLIC}").connected()


# The files of contrib/


@pytest.mark.parametrize("name", AS_INSTALLED)
def test_the_files_of_contrib(laboratory: Laboratory, tmp_path: Path, name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}: run scripts/bootstrap.sh tools")
    relay = installed(laboratory, tmp_path, name)
    trusts, before = ("--ca-file", str(tmp_path / AUTHORITY)), (*NAMED, str(tmp_path / HOSTS))
    for path, network in {"": 64, **NETWORKS}.items():
        password = f"of {path}" if path else PASSWORD
        here, there = (
            laboratory.client(*trusts, url=f"{PUBLIC_URL}/{path}", before=before, CANDY_PASSWORD=password)
            for _ in range(2)
        )
        assert here.connected().startswith(f"10.{network}.0.")
        # By its own address, which the relay is told.
        relay.wait_for(rf"INFO .*{here.host.address}: logged in as {here.connected()} ")
        assert " 0% packet loss" in ping(here.host, there.connected(), "-c", "5", "-i", "0.02")
    stranger = laboratory.client(*trusts, url=f"{PUBLIC_URL}/elsewhere", before=before)
    stranger.wait_for("HTTP 404 Not Found")
    assert not any("/elsewhere" in line for line in relay.lines)
