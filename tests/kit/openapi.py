"""Answers of a control interface, held to its OpenAPI document.

    Document(what GET /v1/openapi.json gave) ─▶ check("GET", "/v1/members", 200, answer)

Rules: more is demanded than of a client: a field that the document does not have is a fault, too.
"""

import re
from typing import Any

from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

Json = dict[str, Any]


class Document:
    """One document, which is a right one."""

    def __init__(self, content: Json) -> None:
        validate(content)
        self._paths: dict[str, Json] = content["paths"]
        self._components = _closed(content["components"])

    @property
    def operations(self) -> set[tuple[str, str]]:
        """Method and path of each."""
        return {(method.upper(), path) for path, operations in self._paths.items() for method in operations}

    def check(self, method: str, path: str, status: int, answer: object) -> tuple[str, str]:
        """Fail if the answer is not one of those that the document has; the operation that it is of."""
        [template] = [one for one in self._paths if _matches(one, path) and method.lower() in self._paths[one]]
        responses = self._paths[template][method.lower()]["responses"]
        assert str(status) in responses, f"{method} {template} has no answer {status}"
        content = responses[str(status)]["content"]
        if isinstance(answer, bytes):
            assert list(content) == ["application/x-pcapng"]
            return method, template
        schema = content["application/json"]["schema"]
        Draft202012Validator({**schema, "components": self._components}).validate(answer)
        return method, template


def _matches(template: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)), path) is not None


def _closed(value: Any) -> Any:
    """Schemas that allow no fields but those that they name."""
    if isinstance(value, list):
        return [_closed(one) for one in value]
    if not isinstance(value, dict):
        return value
    closed = {key: _closed(one) for key, one in value.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed["additionalProperties"] = False
    return closed
