"""The litellm package, told that ours is an OpenAI server."""

import json
import os
import sys

import litellm

WHERE = {"api_base": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"]}
HELLO = [{"role": "user", "content": "hello there"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def chat():
    done = litellm.completion(model="openai/gpt-4o-mini", messages=HELLO, **WHERE)
    assert done.choices[0].message.content == "hello there"
    assert done.usage.total_tokens == 4


def stream():
    chunks = litellm.completion(model="openai/gpt-4o-mini", messages=HELLO, stream=True, **WHERE)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == "hello there"


def tools():
    messages = [{"role": "user", "content": "tool"}]
    fields = {"model": "openai/gpt-tools", "tools": [WEATHER], **WHERE}
    message = litellm.completion(messages=messages, **fields).choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    done = litellm.completion(messages=[*messages, message, result], **fields)
    assert done.choices[0].message.content == "one two"


def embeddings():
    found = litellm.embedding(
        model="openai/text-embedding-3-small", input=["a", "b"], encoding_format="float", **WHERE
    )
    assert [len(one["embedding"]) for one in found.data] == [512, 512]


if __name__ == "__main__":
    globals()[sys.argv[1]]()
