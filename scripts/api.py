"""Writes docs/api.md: every call of the control interface with its parameters, and every shape with its fields.

    the OpenAPI document of each side (candy.control.document) ─▶ api() ─▶ docs/api.md      (make reference)

Rule: what the OpenAPI document says stands nowhere in this file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from candy.control.calls import MEMBER, RELAY
from candy.control.document import EVERY_CALL, document

FILE = Path(__file__).parents[1] / "docs" / "api.md"

HEAD = """\
<!-- Made by `make reference` from the OpenAPI document. Change scripts/api.py or candy/control, not this file. -->

# The API

What the subcommands of `candy-server` and `candy-client` ask, as HTTP with JSON: of a relay, and of a member.
`GET /v1/openapi.json` has the same for programs, as OpenAPI 3.1. Within `/v1` there may be more calls, parameters and
fields later, and none is changed or taken away.

## By the socket

Root may ask by it, and kick, and so may the group of `--control-group`.
[Where it is](operation.md#asking-a-relay).

<!-- run: relay, stays -->
```sh
echo "admin $(openssl rand -hex 16)" > /root/tokens
chmod 600 /root/tokens
candy-server --control 127.0.0.1:26817 --control-token-file /root/tokens
```

```text
… listening on 0.0.0.0:26816, addresses from 192.168.202.0/24
… control on 127.0.0.1:26817
```

<!-- run: relay -->
```sh
curl -sS --unix-socket /run/candy/relay-26816.sock http://x/v1/networks
```

```text
{"networks":[{"path":"/","pool":"192.168.202.0/24","members":0,"addresses_used":0,"addresses_free":254,…
```

## By TCP

With `--control HOST:PORT --control-token-file FILE`, as above: in the clear, so on loopback, or behind a web server
that does TLS. Each request has a token of the file.

<!-- run: relay -->
```sh
export token=$(cut -d ' ' -f 2 /root/tokens)
curl -sS -H "Authorization: Bearer $token" http://127.0.0.1:26817/v1/leases
```

```text
{"leases":[],"reservations":[]}
```

<!-- run: relay -->
```sh
curl -sS -H "Authorization: Bearer $token" http://127.0.0.1:26817/v1/reservations \\
    --json '{"address": "192.168.202.10", "device": "laptop", "network": "/"}'
```

```text
{"network":"/","address":"192.168.202.10","device":"laptop",…
```

Without one:

<!-- run: relay -->
```sh
curl -sS http://127.0.0.1:26817/v1/leases
```

```text
{"error":…
```

## Common to all calls

- A parameter of the query is written as text: `?network=/home&over=1`. What is in a path is escaped (`%2F` for `/`).
- An error is a status of 400 or more, and a [`Problem`](#problem): one line that says how to mend it.
- Times are seconds since 1970. `in` is what came to the program that answers, `out` what it sent.

| status | when |
|---|---|
"""


def api() -> str:
    """The whole document."""
    lines = [HEAD.removesuffix("\n"), *(f"| {status} | {why} |" for status, why in EVERY_CALL.items()), ""]
    relay, member = document("relay", RELAY), document("member", MEMBER)
    shapes: dict[str, Any] = {}
    for title, made in (("Of a relay", relay), ("Of a member", member)):
        lines += [f"## {title}", "", *_calls(made), ""]
        shapes |= made["components"]["schemas"]
    lines += ["## Shapes", ""]
    for name in sorted(shapes):
        lines += [*_shape(name, shapes[name]), ""]
    return "\n".join(lines)


def _calls(made: dict[str, Any]) -> Iterator[str]:
    yield "| call | what it does | parameters | body | answer | also |"
    yield "|---|---|---|---|---|---|"
    for path, methods in made["paths"].items():
        for method, of in methods.items():
            body = of.get("requestBody")
            also = [f"{status}: {answer['description']}" for status, answer in sorted(of["responses"].items())]
            own = [line for line in also if not line.startswith("200") and not _is_of_every_call(line)]
            yield _row(
                f"`{method.upper()} {path}`",
                of["summary"],
                "; ".join(_parameter(each) for each in of["parameters"]),
                _kind(body["content"]["application/json"]["schema"]) if body else "",
                _answer(of["responses"]["200"]["content"]),
                "; ".join(own),
            )


def _answer(content: dict[str, Any]) -> str:
    """The shape of an answer, or, of one that goes on until it is ended, the kind of file."""
    if "application/json" in content:
        return _kind(content["application/json"]["schema"])
    return f"`{next(iter(content))}`"


def _is_of_every_call(line: str) -> bool:
    return line in {f"{status}: {why}" for status, why in EVERY_CALL.items()}


def _parameter(of: dict[str, Any]) -> str:
    schema = of["schema"]
    within = f", {schema['minimum']:g} to {schema['maximum']:g}" if "minimum" in schema else ""
    return f"`{of['name']}` ({_kind(schema)}{within}) {of['description']}"


def _shape(name: str, of: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    if "description" in of:
        yield " ".join(of["description"].split())
        yield ""
    yield "| field | kind | what it is |"
    yield "|---|---|---|"
    for field, schema in of.get("properties", {}).items():
        needed = "" if field in of.get("required", []) or "default" not in schema else ", may be left out"
        yield _row(f"`{field}`", _kind(schema) + needed, " ".join(schema.get("description", "").split()))


def _kind(schema: dict[str, Any]) -> str:
    """In a word or two, of a JSON schema."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if either := schema.get("anyOf"):
        return " or ".join(_kind(each) for each in either)
    match schema.get("type"):
        case "array":
            return f"list of {_kind(schema['items'])}" if "items" in schema else "list"
        case "object":
            values = schema.get("additionalProperties")
            return f"names with {_kind(values)}" if isinstance(values, dict) else "object"
        case "string":
            return {"ipv4": "address", "ipv4network": "network"}.get(schema.get("format", ""), "text")
        case "boolean":
            return "true or false"
        case other:
            return str(other)


def _row(*cells: str) -> str:
    written = (cell.replace("|", "\\|") for cell in cells)
    return "|" + "|".join(f" {cell} " if cell else " " for cell in written) + "|"


if __name__ == "__main__":
    FILE.write_text(api())
