"""Serve two experts as OpenAI's API, ask them with its client, edit the file meanwhile."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import openai

REGISTRY = """
version: 1
experts:
  - {name: parrot, kind: llm, backend: echo, model: echo}
  - {name: away, kind: llm, backend: echo, model: echo, options: {fail: unavailable}}
compositions:
  - {name: auto, experts: [away, parrot], baseline: away}
"""
SERVE = "from composer.cli import main; main()"


def ask(client: openai.OpenAI, text: str) -> str:
    """Ask one expert."""
    messages = [{"role": "user", "content": text}]
    done = client.chat.completions.create(model="parrot", messages=messages)
    return done.choices[0].message.content


def show(client: openai.OpenAI) -> None:
    """Ask a composition, see who answered, and stream."""
    messages = [{"role": "user", "content": "one two three"}]
    raw = client.chat.completions.with_raw_response.create(model="auto", messages=messages)
    done, told = raw.parse(), raw.headers
    print(f"{done.model}: {done.choices[0].message.content}")
    print(f"asked {told['x-composer-model']}, {told['x-composer-attempts']} attempts")
    for chunk in client.chat.completions.create(model="parrot", messages=messages, stream=True):
        print(chunk.choices[0].delta.content or "", end="|")
    print()


def main() -> None:
    """Start the server, ask, edit the file, ask again."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "experts.yaml"
        path.write_text(REGISTRY)
        command = [sys.executable, "-c", SERVE, "serve", "-r", str(path), "--port", "0"]
        os.environ.update(PYTHONUNBUFFERED="1", NO_PROXY="127.0.0.1")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            url = server.stdout.readline().split()[1].rstrip(";")
            client = openai.OpenAI(base_url=url, api_key="any text")
            show(client)
            path.write_text(REGISTRY.replace("echo}", "echo, options: {reply: Bonjour}}"))
            while (answer := ask(client, "Hello")) == "Hello":
                pass  # it is read within a second
            print(f"edited: {answer}")
            server.terminate()


if __name__ == "__main__":
    main()
