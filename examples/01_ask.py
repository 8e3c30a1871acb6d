"""Ask a composition of two experts, one of which is down. Needs no model and no network."""

from pathlib import Path
from tempfile import TemporaryDirectory

from composer import Composer

REGISTRY = """
version: 1
experts:
  - {name: parrot, kind: llm, backend: echo, model: echo, price: {prompt: 0.1, completion: 0.1}}
  - {name: away, kind: llm, backend: echo, model: echo, options: {fail: unavailable}}
compositions:
  - {name: auto, experts: [away, parrot], baseline: away}
"""


def main() -> None:
    """Ask by name, ask the composition, stream, explain."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "experts.yaml"
        path.write_text(REGISTRY)
        with Composer.load(path) as composer:
            answer = composer.query("hello there", model="parrot")
            print(f"{answer.expert}: {answer.text} (${answer.cost:.7f})")

            answer = composer.query("is anybody in?")  # model="auto"
            for step in answer.steps:
                print(f"  asked {step.expert}: {step.error or 'answered'}")
            print(f"{answer.expert}: {answer.text}")

            for piece in composer.stream("one word at a time", model="parrot"):
                print(piece, end="|")
            print()
            print(composer.explain("who would be asked?"))


if __name__ == "__main__":
    main()
