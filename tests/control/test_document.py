"""The OpenAPI document of each side: a right one, which has every call, and the words under its fields."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from kit.openapi import Document

from candy.control.calls import MEMBER, RELAY, Call
from candy.control.document import document
from candy.control.paths import VERSION

SIDES: dict[str, Sequence[Call]] = {"relay": RELAY, "member": MEMBER}


def written(side: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(document(side, SIDES[side])))
    return found


@pytest.mark.parametrize("side", SIDES)
def test_it_is_one(side: str) -> None:
    found = Document(written(side))
    assert found.operations == {(call.method, call.path) for call in SIDES[side]}


@pytest.mark.parametrize("side", SIDES)
def test_rules_of_the_calls(side: str) -> None:
    calls = SIDES[side]
    assert len({call.name for call in calls}) == len(calls)
    for call in calls:
        assert call.path.startswith(f"{VERSION}/")
        in_path = {parameter.name for parameter in call.parameters if parameter.place == "path"}
        assert in_path == {part[1:-1] for part in call.path.split("/") if part.startswith("{")}
        assert call.changes is (call.method != "GET")


def test_words_under_fields_are_the_documents() -> None:
    schemas = written("relay")["components"]["schemas"]
    for kind in ("Member", "MemberDetail"):
        assert schemas[kind]["properties"]["since"]["description"] == "When it logged in."
        assert schemas[kind]["properties"]["queued_bytes"]["description"] == "What waits for it now."
    assert "drops" in schemas["Member"]["required"]
    assert "bytes_in_per_s" not in schemas["Reserve"]["properties"]
    assert schemas["Reserve"]["required"] == ["address", "device"]


def test_what_a_check_finds() -> None:
    found = Document(written("relay"))
    reloaded: dict[str, list[str]] = {"applied": [], "needs_restart": [], "failed": []}
    assert found.check("POST", "/v1/reload", 200, reloaded) == ("POST", "/v1/reload")
    assert found.check("POST", "/v1/members/x/kick", 404, {"error": ""}) == ("POST", "/v1/members/{member}/kick")
    for method, path, status, answer in (
        ("POST", "/v1/reload", 200, {**reloaded, "applied": [1]}),
        ("POST", "/v1/reload", 200, {**reloaded, "more": 1}),
        ("POST", "/v1/reload", 200, {}),
        ("POST", "/v1/reload", 500, {"error": ""}),
        ("GET", "/v1/reload", 200, reloaded),
    ):
        with pytest.raises(Exception):  # noqa: B017, PT011
            found.check(method, path, status, answer)
