"""Answer from a folder of documents, and cite them; needs no model and no network."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from composer import Composer
from composer.progress import steps
from composer.stores.gathering import Change
from composer.stores.of_registry import build_store
from experts_registry.registry import Registry

REGISTRY = """
version: 1
experts:
  - {name: words, kind: retriever, backend: hashing, model: hashing}
  - name: clerk
    kind: llm
    backend: echo
    model: echo
    options: {reply: "From noon to two [1]."}
stores:
  - {name: handbook, passages: handbook, retrievers: [words]}
compositions:
  - {name: auto, experts: [clerk], retrieval: {store: handbook, k: 2}}
"""
DOCUMENTS = {
    "canteen.md": "# Canteen\n\nThe canteen is open from noon to two, and closed on Sundays.",
    "holidays.md": "# Holidays\n\nHoliday requests go to the office before the first of May.",
    "keys.md": "# Keys\n\nLost keys are replaced by the caretaker for ten francs.",
}


def main() -> None:
    """Build a store, search it, and ask with and without its passages."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "experts.yaml"
        path.write_text(REGISTRY)
        (path.parent / "handbook").mkdir()
        for name, text in DOCUMENTS.items():
            (path.parent / "handbook" / name).write_text(text)
        quiet = partial(steps, quiet=True)
        build_store(Registry.load(path), "handbook", Change(), workers=False, steps=quiet)

        with Composer.load(path) as composer:
            for passage in composer.retrieve("Who replaces lost keys?", 2).passages:
                print(f"{passage.score:.2f}  {passage.source}  {passage.text[:40]!r}")

            answer = composer.query("When is the canteen open?")
            print(answer.text)
            for one in answer.citations:
                source = answer.passages[one.passage - 1].source
                print(f"{answer.text[one.start : one.end]} is {source}")

            bare = composer.query("When is the canteen open?", retrieval="never")
            print(f"without: {len(bare.passages)} passages, {bare.decision.retrieval.reason}")


if __name__ == "__main__":
    main()
