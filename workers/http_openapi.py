"""The OpenAPI 3.1 description of the routes that a worker answers, made from them: it cannot say something else."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from .http_handlers import JSON, PROBLEM, HttpResponse
from .http_types import schema, without_none

if TYPE_CHECKING:
    from .http_handlers import Handlers, Route

OPENAPI_VERSION = "3.1.0"

PROBLEM_SCHEMA = {
    "type": "object",
    "description": "RFC 9457",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail"],
}


def describe(handlers: Handlers, title: str, version: str, *, has_token: bool) -> dict[str, Any]:
    """The whole document."""
    named: dict[str, Any] = {"Problem": PROBLEM_SCHEMA}
    paths: dict[str, Any] = {}
    for route in sorted(handlers, key=lambda one: (one.path, one.method)):
        paths.setdefault(route.path, {})[route.method.lower()] = operation(route, named)
    components: dict[str, Any] = {"schemas": named}
    document: dict[str, Any] = {
        "openapi": OPENAPI_VERSION,
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": components,
    }
    if has_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def operation(route: Route, named: dict[str, Any]) -> dict[str, Any]:
    """One method of one path. Dataclasses that it mentions go into `named`."""
    entry: dict[str, Any] = {"summary": route.summary, "operationId": f"{route.method.lower()} {route.path}"}
    if route.description:
        entry["description"] = route.description
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schema(without_none(route.hints[name]), named)}
        for name in route.path_names
    ]
    for name in route.query_names:
        default = route.parameters[name].default
        one: dict[str, Any] = {"name": name, "in": "query", "required": default is inspect.Parameter.empty}
        one["schema"] = schema(without_none(route.hints[name]), named)
        if default not in (inspect.Parameter.empty, None):
            one["schema"]["default"] = default
        parameters.append(one)
    if parameters:
        entry["parameters"] = parameters
    if "body" in route.parameters:
        kind = route.hints["body"]
        content = {"application/octet-stream": {}} if kind is bytes else {JSON: {"schema": schema(kind, named)}}
        entry["requestBody"] = {"required": True, "content": content}
    entry["responses"] = {
        str(route.status): {"description": "well done", **_content(route, named)},
        "default": {
            "description": "an error",
            "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        },
    }
    return entry


def _content(route: Route, named: dict[str, Any]) -> dict[str, Any]:
    kind = route.hints.get("return", Any)
    if kind is None or kind is type(None):
        return {}
    if kind is str:
        return {"content": {"text/plain": {"schema": {"type": "string"}}}}
    if kind is bytes:
        return {"content": {"application/octet-stream": {}}}
    if kind is HttpResponse:
        return {"content": {"*/*": {}}}
    try:
        return {"content": {JSON: {"schema": schema(kind, named)}}}
    except TypeError:
        return {"content": {JSON: {}}}  # a type that JSON has a word for, though this description has none
