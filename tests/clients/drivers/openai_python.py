"""The openai package; its base address and key come from the environment."""

import json
import sys

import openai

client = openai.OpenAI()
HELLO = [{"role": "user", "content": "hello there"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def chat():
    done = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    assert done.choices[0].message.content == "hello there"
    assert done.usage.total_tokens == 4


def stream():
    with client.chat.completions.stream(model="gpt-4o-mini", messages=HELLO, n=2) as events:
        final = events.get_final_completion()
    assert [choice.message.content for choice in final.choices] == ["hello there"] * 2


def tools():
    messages = [{"role": "user", "content": "tool"}]
    fields = {"model": "gpt-tools", "tools": [WEATHER]}
    message = client.chat.completions.create(messages=messages, **fields).choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    done = client.chat.completions.create(messages=[*messages, message, result], **fields)
    assert done.choices[0].message.content == "one two"


def embeddings():
    found = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert [len(one.embedding) for one in found.data] == [512, 512]
    found = client.embeddings.create(model="text-embedding-3-small", input="a", dimensions=8)
    assert len(found.data[0].embedding) == 8


if __name__ == "__main__":
    globals()[sys.argv[1]]()
