"""Simon Willison's llm, with our models in its file of extra ones."""

import os
import sys
import tempfile
from pathlib import Path

BASE = os.environ["OPENAI_BASE_URL"]
MODELS = f"""\
- {{model_id: ours, model_name: gpt-4o-mini, api_base: "{BASE}"}}
- {{model_id: ours-tools, model_name: gpt-tools, api_base: "{BASE}", supports_tools: true}}
"""
os.environ["LLM_USER_PATH"] = tempfile.mkdtemp()
(Path(os.environ["LLM_USER_PATH"]) / "extra-openai-models.yaml").write_text(MODELS)

import llm  # noqa: E402 - it reads the folder where it is imported


def weather(city: str) -> str:
    """Tell the weather."""
    return f"rain in {city}"


def chat():
    assert llm.get_model("ours").prompt("hello there", stream=False).text() == "hello there"


def stream():
    pieces = [*llm.get_model("ours").prompt("hello there")]
    assert [piece for piece in pieces if piece] == ["hello", " there"]


def tools():
    said = llm.get_model("ours-tools").chain("tool", tools=[weather]).text()
    assert said == "one two"


def embeddings():
    model = llm.get_embedding_model("text-embedding-3-small")
    assert len(model.embed("hello")) == 512


if __name__ == "__main__":
    globals()[sys.argv[1]]()
