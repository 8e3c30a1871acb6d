"""Lose an expert, a slow one and a deadline; needs no model and no network."""

from pathlib import Path
from tempfile import TemporaryDirectory

from composer import Composer
from experts_registry.errors import ExpertTimeoutError

REGISTRY = """
version: 1
experts:
  - {name: first, kind: llm, backend: echo, model: echo, options: {fail: unavailable}}
  - {name: slow, kind: llm, backend: echo, model: echo, options: {delay: 60}}
  - {name: spare, kind: llm, backend: echo, model: echo}
compositions:
  - {name: auto, experts: [first], fallbacks: {any: [spare]}}
  - {name: patient, experts: [slow], fallbacks: {any: [spare]}, limits: {seconds: 2}}
  - {name: strict, experts: [slow], limits: {seconds: 0.2}}
"""


def show(composer: Composer, model: str) -> None:
    """Ask once, and print who was asked and what came of it."""
    answer = composer.query("is anybody in?", model=model)
    ends = (f"{step.expert} {step.error or 'answered'}" for step in answer.steps)
    print(f"{model}: {'; then '.join(ends)}")


def main() -> None:
    """Fall back, until the breaker leaves the broken expert alone; then run out of time."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "experts.yaml"
        path.write_text(REGISTRY)
        with Composer.load(path) as composer:
            show(composer, "auto")
            while composer.status()["first"].breaker == "closed":
                composer.query("and now?")
            print(f"breaker of first: {composer.status()['first'].breaker}")
            show(composer, "auto")  # nobody waits for it now

            show(composer, "patient")  # half of the deadline is kept for the other one
            try:
                composer.query("hurry", model="strict")
            except ExpertTimeoutError as error:
                print(f"strict: {error}")


if __name__ == "__main__":
    main()
