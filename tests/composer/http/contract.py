"""Answers against the documents that describe them: ours, and OpenAI's."""

import json
from pathlib import Path
from typing import Any

import httpx
from jsonschema import Draft202012Validator

__all__ = ["OPENAI", "closed", "events_of", "mistakes", "operation_of", "schema_of"]

OPENAI = json.loads(Path(__file__).with_name("openai_schemas.json").read_text())

# What every HTTP answer has, and no document of an API describes.
_HTTP = {"connection", "content-length", "content-type", "date", "server", "transfer-encoding"}


def operation_of(document: dict[str, Any], method: str, path: str) -> dict[str, Any]:
    """Return what a document says of a method and a path as it was asked."""
    for template, methods in document["paths"].items():
        head, variable, _ = template.partition("{")
        if method.lower() in methods and (path.startswith(head) if variable else path == template):
            found: dict[str, Any] = methods[method.lower()]
            return found
    raise AssertionError(f"{method} {path} is not documented")


def schema_of(document: dict[str, Any], response: httpx.Response) -> dict[str, Any]:
    """Return the schema that a document has for an answer."""
    request = response.request
    operation = operation_of(document, request.method, request.url.path)
    described = operation["responses"][str(response.status_code)]
    if "$ref" in described:
        described = document["components"]["responses"][described["$ref"].rpartition("/")[2]]
    media = response.headers["content-type"].partition(";")[0]
    headers = {
        name: document["components"]["headers"][name] if "$ref" in header else header
        for name, header in described.get("headers", {}).items()
    }
    assert set(response.headers) - _HTTP <= set(headers)
    assert {name for name, one in headers.items() if one["required"]} <= set(response.headers)
    schema: dict[str, Any] = described["content"][media]["schema"]
    return schema


def mistakes(document: dict[str, Any], schema: dict[str, Any], value: Any) -> list[str]:
    """Say where a value departs from a schema of a document."""
    whole = {**schema, "components": document["components"]}
    found = Draft202012Validator(whole).iter_errors(value)
    return [f"{error.json_path}: {error.message}" for error in found]


def closed(node: Any) -> Any:
    """Return a schema whose objects have no other keys than those that it names."""
    if isinstance(node, list):
        return [closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    value = {key: closed(item) for key, item in node.items()}
    return value | {"additionalProperties": False} if "properties" in node else value


def events_of(response: httpx.Response) -> tuple[list[Any], bool]:
    """Return the JSON of the events of a stream, and whether it ended well."""
    lines = response.text.split("\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    is_done = data[-1] == "[DONE]"
    return [json.loads(one) for one in (data[:-1] if is_done else data)], is_done
