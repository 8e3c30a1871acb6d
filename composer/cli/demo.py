"""What the demo prints."""

import asyncio
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from composer.cli.output import print_json, say

if TYPE_CHECKING:
    from composer.demo.run import Demo
    from composer.trace import Answer

__all__ = ["run"]


def run(folder: Path, *, recollect: bool, hub: bool, as_json: bool) -> None:
    """Run the demo from models to answers."""
    quiet = as_json
    result: dict[str, Any] = {"folder": str(folder)}
    demo = _models(folder, hub, recollect, quiet)
    result["report"] = _router(demo, recollect, quiet)
    result["answers"] = _answers(demo, quiet)
    if as_json:
        print_json(result)
    else:
        _next(demo)


def _models(folder: Path, hub: bool, recollect: bool, quiet: bool) -> "Demo":
    from composer.demo.run import prepare, set_up

    _title("1  Three language models of different families, and a sentence encoder", quiet)
    demo = set_up(folder, hub=hub, recollect=recollect)
    for spec in demo.registry.experts.values():
        _tell(
            f"  {spec.name:<11} {spec.tags['family']:<9} {(spec.active_params or 0) / 1e6:>4.0f}M  "
            f"{spec.tags['licence']:<20} from {spec.tags['upstream']}",
            quiet,
        )
    _tell("  verifying and converting them (minutes at the first run, then nothing) ...", quiet)
    prepare(demo, lambda name, seconds: _tell(f"  {name} is ready ({seconds:.0f} s)", quiet))
    return demo


def _router(demo: "Demo", recollect: bool, quiet: bool) -> dict[str, Any]:
    from composer.cli.report import report_lines
    from composer.demo.run import collect, learn

    count = len(demo.queries.read_text(encoding="utf-8").splitlines())
    _title(f"2  How well each answers {count} graded queries", quiet)
    if recollect:
        asyncio.run(collect(demo, quiet=quiet))
    else:
        _tell(
            "  outcomes recorded by 'expert-composer demo --collect' (see composer/demo/README.md)",
            quiet,
        )
    report = learn(demo)
    for line in report_lines(report):
        _tell("  " + line, quiet)
    _tell(f"  picture: {demo.folder / 'quality-cost.png'}", quiet)
    return report.to_json()


def _answers(demo: "Demo", quiet: bool) -> list[dict[str, Any]]:
    from composer.cli.ask import answer_json
    from composer.demo.run import ask_fresh

    _title("3  Fresh questions, each sent to one expert on its Ray worker", quiet)
    answers: list[dict[str, Any]] = []

    def show(question: str, answer: "Answer") -> None:
        answers.append({"question": question, **answer_json(answer)})
        _tell(f"\n  Q: {question}", quiet)
        _tell("  A: " + answer.text.strip().replace("\n", "\n     "), quiet)
        scores = ", ".join(f"{c.expert} {c.quality:.2f}" for c in answer.decision.candidates)
        _tell(f"     {answer.expert}, because: {answer.decision.reason}", quiet)
        _tell(f"     predicted quality: {scores}", quiet)
        _tell(f"     ${answer.cost:.6f}, {answer.seconds:.1f} s", quiet)

    ask_fresh(
        demo,
        on_ready=lambda seconds: _tell(f"  workers are ready ({seconds:.0f} s)", quiet),
        on_answer=show,
    )
    return answers


def _next(demo: "Demo") -> None:
    registry = demo.registry.path
    # As it can be typed here: `make demo` does not activate the environment.
    command = "expert-composer" if shutil.which("expert-composer") else sys.argv[0]
    _title("What to type next", False)
    say(f"  {command} ask -r {registry} --explain 'What is the opposite of humble?'")
    say(f"  {command} chat -r {registry}")
    say(f"  {command} route -r {registry} --explain 'Write SQL that counts orders per day.'")
    say(f"  {command} init my-experts     # a registry of your own")


def _title(text: str, quiet: bool) -> None:
    if not quiet:
        typer.secho(f"\n{text}", bold=True)


def _tell(text: str, quiet: bool) -> None:
    if not quiet:
        say(text)
