"""The OpenAPI document of a side's control interface, made from its calls and the shapes of their answers.

    calls ─▶ document(): what GET /v1/openapi.json answers

This module does not know how anything is answered.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from candy import __version__
from candy.control.calls import Call, Parameter
from candy.control.model import Problem
from candy.control.sockets import Side
from candy.control.streams import Stream

Schema = dict[str, Any]

EVERY_CALL = {
    400: "a parameter is not one of the call, or can't be right",
    401: "over TCP, a token is missing or not known",
    403: "a browser that has logged in, and would change something without its CSRF token",
    404: "there is no such call",
}


def document(side: Side, calls: Sequence[Call]) -> Schema:
    """The whole of it, OpenAPI 3.1."""
    kinds: dict[Any, JsonSchemaMode] = {Problem: "serialization"}
    for call in calls:
        # With those that it is made of, for their words.
        if not issubclass(call.answer, Stream):
            kinds |= dict.fromkeys(call.answer.__mro__[:-1], "serialization")
        if call.body is not None:
            kinds[call.body] = "validation"
    schemas, definitions = TypeAdapter.json_schemas(
        [(kind.__name__, mode, TypeAdapter(kind)) for kind, mode in kinds.items()],
        ref_template="#/components/schemas/{model}",
    )
    named = {name: schema for (name, _), schema in schemas.items()}
    _inherit_words(kinds, definitions["$defs"])
    paths: dict[str, Schema] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, named)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"candy {side}, control interface",
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Over TCP alone: a token of --control-token-file. A UNIX socket takes none.",
                }
            },
        },
        "security": [{}, {"token": []}],
    }


def _inherit_words(kinds: Iterable[type], schemas: dict[str, Schema]) -> None:
    """pydantic finds the words under a class's own fields alone."""
    for kind in kinds:
        for base in kind.__mro__[1:-1]:
            for name, field in schemas[base.__name__]["properties"].items():
                if "description" in field:
                    schemas[kind.__name__]["properties"][name].setdefault("description", field["description"])


def _operation(call: Call, schemas: dict[str, Schema]) -> Schema:
    # The words of a call itself come last: they say more.
    problems = {
        str(status): _answer(why, schemas["Problem"]) for status, why in {**EVERY_CALL, **call.refusals}.items()
    }
    operation: Schema = {
        "operationId": call.name,
        "summary": call.does,
        "parameters": [_parameter(parameter) for parameter in call.parameters],
        "responses": {"200": _result(call, schemas), **problems},
    }
    if call.body is not None:
        content = {"application/json": {"schema": schemas[call.body.__name__]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _result(call: Call, schemas: dict[str, Schema]) -> Schema:
    if issubclass(call.answer, Stream):
        return {"description": call.does, "content": {call.answer.media_type: {}}}
    return _answer(call.does, schemas[call.answer.__name__])


def _answer(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _parameter(parameter: Parameter) -> Schema:
    schema = TypeAdapter(parameter.kind).json_schema()
    if parameter.default is not None:
        schema["default"] = parameter.default
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.means,
        "required": parameter.place == "path",
        "schema": schema,
    }
