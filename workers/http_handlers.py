"""Handlers: which function answers which request, and what it is given and gives back.

    app = Handlers()

    @app.get("/hello/{name}")
    async def hello(name: str, times: int = 1) -> dict[str, str]:
        return {"greeting": "hello " * times + name}

Between the worker that answers requests and the user's functions. The one invariant: a route's function is called only
with arguments of the types that it declares; everything else a client can send is answered by an error that says what
was expected. A function's parameters are, by name, parts of the path; `body`, the JSON of the request; `request`, the
HttpRequest itself; and otherwise parts of the query, which need a default to be optional.
"""

from __future__ import annotations

import inspect
import re
import typing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote

import orjson

from .http_types import ValueMismatch, convert, convert_text, is_text_kind, schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"

QUERY_FIELDS_MAX: Final = 64
"""Fields of one query. Arbitrary; no handler has as many parameters."""

_PART = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)\}")

F = TypeVar("F", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as it came, for a handler that wants more than its parameters. Header names are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An answer, for a handler that wants to say more than a value. `body`: bytes, text, or what orjson takes."""

    body: Any = field(default=None, repr=False)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str | None = None
    """None: text/plain for text, application/octet-stream for bytes, application/json for the rest."""


class HttpError(Exception):
    """Raised by a handler to answer with an error: `raise HttpError(404, "there is no such thing")`.

    The detail is for the client; keep secrets out of it. Other exceptions become a 500 that says nothing.
    """

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"{status} is not the status of an error")
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Route:
    """One function with the method and path that it answers."""

    method: str
    path: str
    function: Callable[..., Any]
    summary: str
    parameters: dict[str, inspect.Parameter]
    hints: dict[str, Any]
    pattern: re.Pattern[str]
    status: int
    """Of an answer that is not a HttpResponse."""
    description: str = ""

    @property
    def path_names(self) -> tuple[str, ...]:
        return tuple(_PART.findall(self.path))

    @property
    def query_names(self) -> tuple[str, ...]:
        special = {*self.path_names, "body", "request"}
        return tuple(name for name in self.parameters if name not in special)

    def bind(self, request: HttpRequest, parts: dict[str, str]) -> dict[str, Any]:
        """The arguments of the function.

        Raises:
            HttpError: the request does not have them.
        """
        arguments: dict[str, Any] = {}
        try:
            for name in self.path_names:
                arguments[name] = convert_text(self.hints[name], unquote(parts[name], errors="strict"), name)
            for name in request.query:
                if name not in self.query_names:
                    known = ", ".join(self.query_names) or "none"
                    raise HttpError(400, f"the query has an unknown field {name[:80]!r}; known are: {known}")
            for name in self.query_names:
                if name in request.query:
                    arguments[name] = convert_text(self.hints[name], request.query[name], f"the field {name!r}")
                elif self.parameters[name].default is inspect.Parameter.empty:
                    raise HttpError(400, f"the query has no field {name!r}")
            if "body" in self.parameters:
                arguments["body"] = self._body(request)
        except ValueMismatch as error:
            raise HttpError(422, str(error)) from error
        except UnicodeDecodeError:
            raise HttpError(400, "the path is not UTF-8") from None
        if "request" in self.parameters:
            arguments["request"] = request
        return arguments

    def _body(self, request: HttpRequest) -> Any:
        kind = self.hints["body"]
        if kind is bytes:
            return request.body
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != JSON:
            # A browser sends other types to any host without asking it first; this one it asks about.
            raise HttpError(415, f"the body must be JSON, with the header Content-Type: {JSON}")
        try:
            value = orjson.loads(request.body)
        except orjson.JSONDecodeError as error:
            raise HttpError(400, f"the body is not JSON: {error.msg} at line {error.lineno}") from error
        try:
            return convert(kind, value)
        except RecursionError:
            raise HttpError(400, "the body is nested too deep") from None


class Handlers:
    """A table of routes. Make one, decorate functions with it, and name it in the configuration."""

    def __init__(self) -> None:
        self._routes: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def get(self, path: str, *, status: int = 200) -> Callable[[F], F]:
        """Decorates the function that answers GET (and HEAD) requests for `path`, such as "/items/{number}"."""
        return self.route("GET", path, status=status)

    def post(self, path: str, *, status: int = 200) -> Callable[[F], F]:
        """Like `get`, for POST."""
        return self.route("POST", path, status=status)

    def put(self, path: str, *, status: int = 200) -> Callable[[F], F]:
        """Like `get`, for PUT."""
        return self.route("PUT", path, status=status)

    def delete(self, path: str, *, status: int = 200) -> Callable[[F], F]:
        """Like `get`, for DELETE."""
        return self.route("DELETE", path, status=status)

    def route(self, method: str, path: str, *, status: int = 200) -> Callable[[F], F]:
        """Decorates the function that answers `method` requests for `path`, with `status` unless it says otherwise.

        Raises:
            ValueError: the method or path is none, or has a function already.
            TypeError: a parameter of the function has a type that no request can fill.
        """

        def decorate(function: F) -> F:
            self._add(make_route(method, path, function, status))
            return function

        return decorate

    def include(self, other: Handlers) -> None:
        """Answer what `other` answers, too. Raises ValueError when both answer the same."""
        for route in other:
            self._add(route)

    def _add(self, route: Route) -> None:
        shape = _PART.sub("{}", route.path)
        for known in self._routes:
            if known.method == route.method and _PART.sub("{}", known.path) == shape:
                raise ValueError(f"{route.method} {route.path} has a handler already: {known.function.__qualname__}")
        self._routes.append(route)
        # A path that is written out goes before one with parts in braces.
        self._routes.sort(key=lambda one: one.path.count("{"))

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route of a request and the parts of its path, still escaped.

        Raises:
            HttpError: 404, or 405 with the methods that the path has.
        """
        wanted = "GET" if method == "HEAD" else method
        allowed: list[str] = []
        for route in self._routes:
            match = route.pattern.fullmatch(path)
            if match is not None:
                if route.method == wanted:
                    return route, match.groupdict()
                allowed.append(route.method)
        if not allowed:
            raise HttpError(404, "there is nothing at this path; GET /openapi.json lists what there is")
        if "GET" in allowed:
            allowed.append("HEAD")
        raise HttpError(405, f"this path has no {method}", {"allow": ", ".join(sorted(set(allowed)))})


def make_route(method: str, path: str, function: Callable[..., Any], status: int) -> Route:
    """A route, checked. Raises like Handlers.route."""
    if method not in METHODS:
        raise ValueError(f"{method!r} is not one of {', '.join(METHODS)}")
    if not path.startswith("/") or "?" in path or "//" in path:
        raise ValueError(f"{path!r} is not a path such as /items/{{number}}")
    names = _PART.findall(path)
    if len(set(names)) != len(names) or "{" in _PART.sub("", path) or "}" in _PART.sub("", path):
        raise ValueError(f"{path!r} has braces that do not name its parts, each by another name")
    parameters = dict(inspect.signature(function).parameters)
    hints = typing.get_type_hints(function)
    for name, parameter in parameters.items():
        hints.setdefault(name, str)
        if parameter.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            raise TypeError(f"{function.__qualname__}: the parameter {name} cannot be given by name")
        if name == "body":
            if hints[name] is not bytes:
                schema(hints[name], {})
        elif name != "request" and not is_text_kind(hints[name]):
            raise TypeError(f"{function.__qualname__}: {name} must be str, int, float or bool; a JSON value is `body`")
    for name in names:
        if name not in parameters:
            raise TypeError(f"{function.__qualname__}: no parameter for {{{name}}} of the path {path}")
    pattern = "".join(
        f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(_PART.split(path))
    )
    summary, _, description = inspect.cleandoc(function.__doc__ or "").partition("\n")
    return Route(
        method,
        path,
        function,
        summary or function.__name__.replace("_", " "),
        parameters,
        hints,
        re.compile(pattern),
        status,
        description.strip(),
    )


def parse_query(text: str) -> dict[str, str]:
    """The fields of a query.

    Raises:
        HttpError: too many fields, one that comes twice, or one that is not UTF-8.
    """
    try:
        fields = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        raise HttpError(400, f"the query is not UTF-8, or has more than {QUERY_FIELDS_MAX} fields") from None
    query = dict(fields)
    if len(query) != len(fields):
        raise HttpError(400, "a field of the query comes twice")
    return query
