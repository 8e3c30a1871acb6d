"""What the document says of requests is what the door takes."""

import pytest
from jsonschema import Draft202012Validator

from composer.http.app import _POST
from composer.http.openapi.paths import OPERATIONS

CHAT, TEXT, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPOND = "/v1/responses"
TURN = {"role": "user", "content": "hello there"}
SCHEMAS = {
    name.partition(" ")[2]: operation.ask.model_json_schema()
    for name, operation in OPERATIONS.items()
    if operation.ask is not None
}
GOOD = {
    CHAT: {"model": "cheap", "messages": [TURN]},
    TEXT: {"model": "cheap", "prompt": "hello"},
    EMBED: {"model": "words", "input": "hello"},
    "/v1/route": {"model": "cheap", "messages": [TURN]},
    "/v1/feedback": {"id": "x", "quality": 1},
    RESPOND: {"model": "cheap", "input": "hello"},
    "/v1/rerank": {"model": "words", "query": "hello", "documents": ["hello", "there"]},
}
GOOD = {path: body for path, body in GOOD.items() if path in _POST}


def bounds(path):
    """Yield field, a value just within its bound, and one just beyond."""
    for field, node in SCHEMAS[path]["properties"].items():
        for option in node.get("anyOf", [node]):
            for key, step in (("minimum", -1), ("maximum", 1)):
                if key in option:
                    yield field, option[key], option[key] + step


LIMITS = [(path, *bound) for path in GOOD for bound in bounds(path)]


@pytest.mark.parametrize(("path", "field", "within", "beyond"), LIMITS)
def test_the_documented_limits_are_those_of_the_door(raw, path, field, within, beyond):
    fields = {"logprobs": True} if field == "top_logprobs" else {}
    response = raw.post(path, json={**GOOD[path], **fields, field: within})
    error = response.json().get("error") or {"code": ""}
    assert not error["code"].endswith(("min_value", "max_value"))
    response = raw.post(path, json={**GOOD[path], **fields, field: beyond})
    assert response.status_code == 400
    assert field in response.json()["error"]["message"]


def longest(path):
    """Yield field, an item, and the most items."""
    for field, node in SCHEMAS[path]["properties"].items():
        found = [one["maxItems"] for one in node.get("anyOf", [node]) if "maxItems" in one]
        if found:
            one = TURN if path == RESPOND else GOOD[path].get(field, "x")
            yield field, one[0] if isinstance(one, list) else one, found[0]


LENGTHS = [(path, *one) for path in GOOD for one in longest(path)]


@pytest.mark.parametrize(("path", "field", "item", "most"), LENGTHS)
def test_the_documented_lengths_are_those_of_the_door(raw, path, field, item, most):
    assert raw.post(path, json={**GOOD[path], field: [item] * most}).is_success
    response = raw.post(path, json={**GOOD[path], field: [item] * (most + 1)})
    assert response.json()["error"]["code"] == "array_above_max_length"


REQUIRED = [(path, field) for path in GOOD for field in SCHEMAS[path]["required"]]


@pytest.mark.parametrize(("path", "field"), REQUIRED)
def test_what_is_documented_as_required_is(raw, path, field):
    body = {key: value for key, value in GOOD[path].items() if key != field}
    error = raw.post(path, json=body).json()["error"]
    assert (error["code"], error["param"]) == ("missing_required_parameter", field)


FIELDS = [
    (path, field)
    for path in GOOD
    for field in SCHEMAS[path]["properties"]
    if field not in SCHEMAS[path]["required"]
]


@pytest.mark.parametrize(("path", "field"), FIELDS)
def test_a_documented_field_may_be_null_and_has_a_type(raw, path, field):
    response = raw.post(path, json={**GOOD[path], field: None})
    assert response.is_success
    schema = {**SCHEMAS[path]["properties"][field], "$defs": SCHEMAS[path].get("$defs", {})}
    allows = Draft202012Validator(schema).is_valid
    wrong = next(value for value in ({"a": 1}, [{"a": 1}], 5) if not allows(value))
    response = raw.post(path, json={**GOOD[path], field: wrong})
    assert (response.status_code, response.json()["error"]["param"]) == (400, field)


@pytest.mark.parametrize(
    ("path", "field"), [(CHAT, "max_tokens"), (TEXT, "n"), (EMBED, "dimensions")]
)
def test_a_whole_number_may_be_written_with_a_point(raw, path, field):
    assert raw.post(path, json={**GOOD[path], field: 16.0}).is_success
    response = raw.post(path, json={**GOOD[path], field: 16.5})
    assert response.json()["error"]["code"] == "invalid_type"
