"""Handlers: what a function is called with, what a client is told instead, and what the description says of it."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import types
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Literal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.workers.http_handlers import Handlers, HttpError, HttpRequest, HttpResponse, parse_query
from partywire.workers.http_openapi import describe
from partywire.workers.http_types import ValueMismatch, convert, schema
from partywire.workers.http_worker import answer_of, load_handlers


@dataclass
class Point:
    x: int
    y: float = 0.0
    label: str | None = None

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x is negative")


@dataclass
class Path:
    points: list[Point]
    kind: Literal["open", "closed"]
    tags: dict[str, bool]
    ends: tuple[int, ...] = ()


GOOD: dict[str, Any] = {"points": [{"x": 1}, {"x": 2, "y": 3, "label": None}], "kind": "open", "tags": {"a": True}}


def test_json_becomes_the_types_that_a_handler_declares() -> None:
    path = convert(Path, GOOD | {"ends": [1, 2]})
    assert path == Path([Point(1), Point(2, 3.0)], "open", {"a": True}, (1, 2))
    assert type(path.points[1].y) is float


MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"points": [{"x": "1"}]}, "the body.points[0].x must be a whole number"),
    ({"points": [{"x": True}]}, "the body.points[0].x must be a whole number"),
    ({"points": [{"x": -1}]}, "the body.points[0] is refused: x is negative"),
    ({"points": [{}]}, "the body.points[0] has no field 'x'"),
    ({"points": [{"x": 1, "z": 2}]}, "the body.points[0] has an unknown field 'z'; known are x, y, label"),
    ({"points": {"x": 1}}, "the body.points must be a list"),
    ({"points": [{"x": 1, "label": 5}]}, "the body.points[0].label must be a text"),
    ({"kind": "round"}, "the body.kind must be one of 'open', 'closed'"),
    ({"tags": {"a": 1}}, "the body.tags.a must be true or false"),
    ({"ends": [1.5]}, "the body.ends[0] must be a whole number"),
]


def test_what_does_not_fit_is_refused_with_its_place() -> None:
    for change, sentence in MISFITS:
        with pytest.raises(ValueMismatch) as caught:
            convert(Path, GOOD | change)
        assert str(caught.value) == sentence


@dataclass
class Either:
    """In a union with Other each contains both, and only what lies deepest tells them apart."""

    child: Either | Other | int | None = None


@dataclass
class Other:
    child: Either | Other | str | None = None


@dataclass
class Nest:
    child: Either | Other


def nested(depth: int, leaf: object) -> dict[str, Any]:
    value = leaf
    for _ in range(depth):
        value = {"child": value}
    assert isinstance(value, dict)
    return value


def test_a_union_of_classes_that_contain_each_other_is_looked_at_once_for_each_value() -> None:
    depth = 100  # 2 ** 100 ways to read it
    with pytest.raises(ValueMismatch) as caught:
        convert(Nest, nested(depth, [True]))
    assert str(caught.value) == f"the body{'.child' * depth} must be an object"
    converted = convert(Nest, nested(depth, "text"))
    for _ in range(depth - 1):
        converted = converted.child
        assert type(converted) is Either or converted == Other("text")
    assert converted == Other("text")


def test_equal_parts_of_a_union_become_values_of_their_own() -> None:
    made = convert(list[Either | Other], [{"child": "a"}, {"child": "a"}, {"child": {"child": 1}}, {}])
    assert made == [Other("a"), Other("a"), Either(Either(1)), Either()]
    assert made[0] is not made[1]


def test_a_long_name_of_a_client_s_own_is_quoted_in_part_and_not_copied_for_each_item() -> None:
    name = "n" * 1_000_000
    with pytest.raises(ValueMismatch) as caught:
        convert(dict[str, list[int]], {name: [1] * 100_000 + ["x"]})
    assert str(caught.value) == f"the body.{'n' * 80}[100000] must be a whole number"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KINDS = (
    Path,
    Point,
    int,
    str,
    float,
    bool,
    None,
    list[int],
    dict[str, float],
    int | None,
    list[Point],
    Any,
    dict,
    list,
)


@given(st.sampled_from(KINDS), json_values)
def test_any_json_is_converted_or_refused(kind: Any, value: Any) -> None:
    try:
        converted = convert(kind, value)
    except ValueMismatch:
        return
    assert orjson.dumps(converted) is not None
    if kind in (int, str, float, bool):
        assert type(converted) is kind


def test_what_was_converted_goes_back_to_the_same_json() -> None:
    assert orjson.loads(orjson.dumps(dataclasses.asdict(convert(Path, GOOD)))) == {
        **GOOD,
        "points": [{"x": 1, "y": 0.0, "label": None}, {"x": 2, "y": 3.0, "label": None}],
        "ends": [],
    }


def make_app() -> Handlers:
    app = Handlers()

    @app.get("/hello/{name}")
    async def hello(name: str, times: int = 1, loud: bool = False) -> dict[str, str]:
        """Greet somebody.

        As often as wanted.
        """
        return {"greeting": "hello " * times + (name.upper() if loud else name)}

    @app.get("/hello/world")
    def world() -> str:
        return "the whole world"

    @app.post("/points", status=201)
    def add(body: Path) -> Path:
        return body

    @app.post("/trees")
    def plant(body: Tree) -> int:
        return len(body.children)

    @app.put("/raw")
    def raw(body: bytes, request: HttpRequest) -> HttpResponse:
        return HttpResponse(body, 202, {"X-Method": request.method}, "image/png")

    @app.delete("/items/{number}")
    def remove(number: int, why: str) -> None:
        raise HttpError(409, f"{number} is needed: {why}")

    return app


def call(app: Handlers, method: str, target: str, body: bytes = b"", content_type: str = "application/json") -> Any:
    path, _, query = target.partition("?")
    route, parts = app.find(method, path)
    headers = {"content-type": content_type}
    arguments = route.bind(HttpRequest(method, path, parse_query(query), headers, body), parts)
    value = route.function(**arguments)
    return asyncio.run(value) if asyncio.iscoroutine(value) else value


def test_a_function_gets_parts_of_the_path_the_query_and_the_body_by_name() -> None:
    app = make_app()
    assert call(app, "GET", "/hello/a%20b?times=2&loud=true") == {"greeting": "hello hello A B"}
    assert call(app, "HEAD", "/hello/%C3%A4") == {"greeting": "hello \xe4"}
    assert call(app, "GET", "/hello/world") == "the whole world"  # what is written out goes first
    assert call(app, "POST", "/points", orjson.dumps(GOOD)) == convert(Path, GOOD)
    assert call(app, "POST", "/trees", b'{"children": [{"children": []}]}') == 1
    assert call(app, "PUT", "/raw", b"\x00", "image/png") == HttpResponse(
        b"\x00", 202, {"X-Method": "PUT"}, "image/png"
    )


ERRORS = [
    ("GET", "/", b"", "", 404),
    ("GET", "/hello/", b"", "", 404),
    ("GET", "/hello/a/b", b"", "", 404),
    ("POST", "/hello/a", b"", "", 405),
    ("PATCH", "/points", b"", "", 405),
    ("GET", "/hello/a?times=x", b"", "", 422),
    ("GET", "/hello/a?times=99999999999999999999", b"", "", 422),
    ("GET", "/hello/a?loud=maybe", b"", "", 422),
    ("GET", "/hello/a?nope=1", b"", "", 400),
    ("GET", "/hello/a?times=1&times=2", b"", "", 400),
    ("GET", "/hello/%ff", b"", "", 400),
    ("GET", "/hello/a?times=%ff", b"", "", 400),
    ("GET", "/hello/a?" + "&".join(f"f{n}=1" for n in range(65)), b"", "", 400),
    ("POST", "/points", b"{", "application/json", 400),
    ("POST", "/trees", b'{"children": [' * 400 + b"]}" * 400, "application/json", 400),
    ("POST", "/trees", b"[" * 100_000, "application/json", 400),
    ("POST", "/trees", b'{"children": [1]}', "application/json", 422),
    ("POST", "/points", b"{}", "application/json; charset=utf-8", 422),
    ("POST", "/points", b"{}", "text/plain", 415),
    ("POST", "/points", b"{}", "", 415),
    ("DELETE", "/items/5", b"", "", 400),
    ("DELETE", "/items/5?why=so", b"", "", 409),
]


def test_a_request_that_does_not_fit_is_answered_by_an_error() -> None:
    for method, target, body, content_type, status in ERRORS:
        with pytest.raises(HttpError) as caught:
            call(make_app(), method, target, body, content_type)
        assert caught.value.status == status
        if status == 405:
            assert "GET, HEAD" in caught.value.headers["allow"] or caught.value.headers["allow"] == "POST"


def test_values_become_answers_with_the_type_that_they_have() -> None:
    types = [answer_of(value, 200) for value in ({"a": 1}, "text", b"raw", None, Point(1))]
    assert [dict(headers).get(b"content-type") for _, headers, _ in types] == [
        b"application/json", b"text/plain; charset=utf-8", b"application/octet-stream", None, b"application/json",
    ]  # fmt: skip
    assert types[4][2] == b'{"x":1,"y":0.0,"label":null}'
    with pytest.raises(TypeError):
        answer_of({"a": object()}, 200)


UNREACHABLE: list[tuple[str, Any]] = [
    ("no-slash", lambda: None),
    ("/a?b", lambda: None),
    ("/a/{b", lambda: None),
    ("/{a}/{a}", lambda a: None),
    ("/{missing}", lambda: None),
    ("/a", lambda *rest: None),
    ("/hello/{other}", lambda other: None),  # the same path twice
]


def test_a_handler_that_no_request_can_reach_is_refused_when_it_is_registered() -> None:
    for path, function in UNREACHABLE:
        with pytest.raises((TypeError, ValueError)):
            make_app().get(path)(function)


def test_a_body_of_an_unknown_type_is_refused_when_the_handler_is_registered() -> None:
    def bad(body: set[int]) -> None: ...

    with pytest.raises(TypeError, match=r"docs/http\.md"):
        Handlers().post("/a")(bad)


def test_the_description_has_every_route_with_its_parameters_and_bodies() -> None:
    app = make_app()
    document = describe(app, "title", "1.0", has_token=True)
    assert orjson.loads(orjson.dumps(document)) == document
    assert document["openapi"] == "3.1.0"
    described = {(method.upper(), path) for path, entry in document["paths"].items() for method in entry}
    assert described == {(route.method, route.path) for route in app}
    hello = document["paths"]["/hello/{name}"]["get"]
    assert (hello["summary"], hello["description"]) == ("Greet somebody.", "As often as wanted.")
    assert [(one["name"], one["in"], one["required"]) for one in hello["parameters"]] == [
        ("name", "path", True),
        ("times", "query", False),
        ("loud", "query", False),
    ]
    body = document["paths"]["/points"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/Path"}
    assert document["components"]["schemas"]["Point"]["required"] == ["x"]
    assert document["security"] == [{"token": []}]
    assert "security" not in describe(app, "title", "1.0", has_token=False)


def test_a_schema_may_refer_to_itself() -> None:
    named: dict[str, Any] = {}
    assert schema(Tree, named) == {"$ref": "#/components/schemas/Tree"}
    assert named["Tree"]["properties"]["children"]["items"] == {"$ref": "#/components/schemas/Tree"}


def test_two_classes_of_one_name_are_described_apart() -> None:
    named: dict[str, Any] = {}
    other = dataclasses.make_dataclass("Point", [("z", str)])
    other.__module__ = "elsewhere"
    for _ in range(2):
        assert schema(Point, named) == {"$ref": "#/components/schemas/Point"}
        assert schema(other, named) == {"$ref": "#/components/schemas/Point2"}
    assert set(named) == {"Point", "Point2"}


@dataclass
class Tree:
    children: list[Tree]


def test_the_page_shows_the_example_that_runs() -> None:
    docs = FilePath(__file__).resolve().parents[2] / "docs"
    source = (docs / "examples" / "http_handlers.py").read_text()
    assert f"```python\n{source}```" in (docs / "http.md").read_text()
    name = "http_handlers_example"
    module = sys.modules[name] = types.ModuleType(name)
    try:
        exec(compile(source, "http_handlers.py", "exec"), module.__dict__)
        app = module.app
        assert call(app, "GET", "/hello/you?times=2") == {"greeting": "hello hello you"}
        assert call(app, "POST", "/total", b'{"prices": [1, 2.5]}') == module.Total(3.5, "EUR")
        with pytest.raises(HttpError, match="at least one"):
            call(app, "POST", "/total", b'{"prices": []}')
        assert "Basket" in describe(app, "", "", has_token=False)["components"]["schemas"]
    finally:
        del sys.modules[name]


@pytest.mark.parametrize("target", ["no_such_module_here:app", "json:app", "json:loads"])
def test_handlers_that_are_not_there_are_named(target: str) -> None:
    with pytest.raises(ValueError, match=target.partition(":")[0]):
        load_handlers(target)
