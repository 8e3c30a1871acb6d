"""langchain-openai; the base address and key come from the environment."""

import sys

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    return f"rain in {city}"


def chat():
    answer = ChatOpenAI(model="gpt-4o-mini").invoke("hello there")
    assert answer.content == "hello there"
    assert answer.usage_metadata["total_tokens"] == 4


def stream():
    pieces = [*ChatOpenAI(model="gpt-4o-mini", stream_usage=True).stream("hello there")]
    assert "".join(piece.content for piece in pieces) == "hello there"
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert whole.usage_metadata["output_tokens"] == 2


def tools():
    model = ChatOpenAI(model="gpt-tools").bind_tools([weather])
    messages = [HumanMessage("tool")]
    answer = model.invoke(messages)
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Oslo"})
    result = ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])
    assert model.invoke([*messages, answer, result]).content == "one two"
    whole = None
    for piece in model.stream(messages):
        whole = piece if whole is None else whole + piece
    assert whole.tool_calls[0]["args"] == {"city": "Oslo"}


def embeddings():
    # Otherwise it sends tokens of OpenAI's own tokenizer, which no other model reads.
    model = OpenAIEmbeddings(model="text-embedding-3-small", check_embedding_ctx_length=False)
    assert [len(one) for one in model.embed_documents(["a", "b"])] == [512, 512]
    assert len(model.embed_query("a")) == 512


if __name__ == "__main__":
    globals()[sys.argv[1]]()
