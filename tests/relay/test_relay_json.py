"""`--log-format json`: each line of a relay is an object, and those of a member say in facts whom and what."""

import json
from pathlib import Path

from lab.member import Member
from lab.programs import Program, environment, server


def test_lines_are_objects(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('[network."/home"]\npasswords = [{ name = "mine", password = "of home" }]\n')
    arguments = server("-w", "ws://127.0.0.1:0", "-c", str(file), "--log-format", "json")
    with Program("relay", arguments, environment(tmp_path)) as relay:
        port = int(relay.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1])
        address = ("127.0.0.1", port)
        with Member.connect(address, path="/home", password="of home", vmac=b"0123456789abcdef") as member:
            member.send(member.greeting())
            member.log_in("10.0.0.5")
        relay.wait_for("logged out")
        with Member.connect(address, path="/home", password="a guess") as guessing:
            guessing.send(guessing.auth("10.0.0.5"))
            assert guessing.end() is None
        relay.wait_for("refused")
    # The lines for members are no part of the log.
    lines = [json.loads(line) for line in relay.lines if line.startswith("{")]
    assert all(line.pop("time").endswith("Z") for line in lines)
    found = {
        word: line
        for word in ("listening", "logged in", "logged out", "refused")
        for line in lines
        if word in line["message"]
    }
    assert found["listening"].keys() == {"level", "message"}
    member_facts = {"network": "/home", "source": "127.0.0.1", "address": "10.0.0.5", "vmac": "0123456789abcdef"}
    said = "/home: 127.0.0.1: logged in as 10.0.0.5 by the password mine (VMAC 0123456789abcdef)"
    assert found["logged in"] == {"level": "info", "message": said, "password": "mine", **member_facts}
    end = found["logged out"]
    assert end.items() >= {"level": "info", "cause": "eof", **member_facts}.items()
    assert end["seconds"] >= 0
    # To itself, by which log_in() finds out.
    assert end["bytes_in"] > 0
    assert end["bytes_out"] > 0
    assert found["refused"] == {
        "level": "warning",
        "message": "/home: 127.0.0.1: refused: wrong password in AUTH",
        "network": "/home",
        "source": "127.0.0.1",
        "kind": "password",
    }
