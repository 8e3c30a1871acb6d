"""A small OpenAI-compatible server whose answers the last user turn chooses."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

__all__ = ["DETAILS", "TOLD", "Upstream"]

TOLD = {"system_fingerprint": "fp_1", "service_tier": "flex"}
DETAILS = {
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
}


@dataclass
class Upstream:
    """Remembers what it was asked, and how often a client left before its answer.

    "wait" is answered once ``is_released``; "hang" and the end of "stall" never are. "once" gets
    one answer, however many are asked for, as from servers that know no ``n``; "tell" says more
    of itself. Of "uncounted" no usage is told, and of "negative" less than none.
    """

    is_released: bool = True
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    hung_up: int = 0
    waiting: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        request = json.loads(body)
        self.requests.append(request)
        self.headers.append({n.decode(): v.decode("latin-1") for n, v in scope["headers"]})
        asked = request["messages"][-1]["content"]
        asked = asked if isinstance(asked, str) else "picture"
        if asked == "hang":
            await self._hang(receive)
        elif asked == "busy":
            await _send(send, 429, {"error": {"message": "slow down"}}, [(b"retry-after", b"7")])
        elif asked == "wrong":
            await _send(send, 400, {"error": {"message": "no such tool"}})
        elif asked == "blame":
            error = {"message": "no", "param": "tools[0].type", "code": "invalid_tool"}
            await _send(send, 400, {"error": error})
        elif asked.startswith("leak"):  # as some servers do
            said = f"key {self.headers[-1].get('authorization')} may not ask {asked}"
            await _send(send, 401, {"error": {"message": said}})
        elif request["stream"]:
            await self._stream(asked, request, receive, send)
        else:
            await self._wait(asked)
            await _send(send, 200, _whole(asked, request))

    async def _hang(self, receive: Receive) -> None:
        self.waiting += 1
        while (await receive())["type"] != "http.disconnect":
            pass
        self.waiting -= 1
        self.hung_up += 1

    async def _wait(self, asked: str) -> None:
        self.waiting += asked == "wait"
        while asked == "wait" and not self.is_released:
            await asyncio.sleep(0.01)
        self.waiting -= asked == "wait"

    async def _stream(
        self, asked: str, request: dict[str, Any], receive: Receive, send: Send
    ) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        pieces: list[dict[str, Any]] = [{"role": "assistant"}]
        if asked == "tool":
            start = {**CALL, "index": 0, "function": {"name": "weather", "arguments": ""}}
            rest = {"index": 0, "function": {"arguments": CALL["function"]["arguments"]}}
            pieces += [{"tool_calls": [start]}, {"tool_calls": [rest]}]
        else:
            pieces += [{"content": "one"}, {"content": " two"}]
        for piece in pieces:
            for index in _indices(asked, request):
                choice = {"index": index, "delta": piece, "logprobs": None}
                if request.get("logprobs") and "content" in piece:
                    choice["logprobs"] = {"content": [_entry(piece["content"], request)]}
                await _event(send, {"choices": [choice]})
        if asked == "stall":
            await self._hang(receive)
            return
        await self._wait(asked)
        if asked != "cut":
            reason = "tool_calls" if asked == "tool" else "stop"
            for index in _indices(asked, request):
                end = {"index": index, "delta": {}, "finish_reason": reason}
                await _event(send, {"choices": [end]})
            await _event(send, {"choices": [], "usage": _usage(asked), **_told(asked)})
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
        else:
            await send({"type": "http.response.body", "body": b""})


def _whole(asked: str, request: dict[str, Any]) -> dict[str, Any]:
    is_call = asked == "tool"
    message: dict[str, Any] = {"role": "assistant", "content": None if is_call else "one two"}
    if is_call:
        message["tool_calls"] = [CALL]
    choice: dict[str, Any] = {
        "message": message,
        "finish_reason": "tool_calls" if is_call else "stop",
    }
    if request.get("logprobs"):
        choice["logprobs"] = {"content": [_entry("one", request)]}
    choices = [{**choice, "index": index} for index in _indices(asked, request)]
    return {"choices": choices, "usage": _usage(asked), **_told(asked)}


def _usage(asked: str) -> dict[str, Any] | None:
    if asked == "uncounted":
        return None
    sign = -1 if asked == "negative" else 1
    usage = {"prompt_tokens": 5 * sign, "completion_tokens": 2 * sign, "total_tokens": 7 * sign}
    return {**usage, **DETAILS} if asked == "tell" else usage


def _told(asked: str) -> dict[str, Any]:
    return TOLD if asked == "tell" else {}


def _indices(asked: str, request: dict[str, Any]) -> range:
    return range(1 if asked == "once" else request.get("n") or 1)


def _entry(token: str, request: dict[str, Any]) -> dict[str, Any]:
    top = [{"token": token, "logprob": -0.5}, {"token": "other", "logprob": -1.5}]
    return {"token": token, "logprob": -0.5, "top_logprobs": top[: request.get("top_logprobs", 0)]}


async def _event(send: Send, value: dict[str, Any]) -> None:
    body = f"data: {json.dumps(value)}\n\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await asyncio.sleep(0)


async def _send(
    send: Send, status: int, value: dict[str, Any], headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    headers = [(b"content-type", b"application/json"), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})
