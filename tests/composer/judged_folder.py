"""A small judged collection: passages of a few words, queries that repeat some of them."""

import csv
import json

import numpy as np

__all__ = ["write_judged"]


def write_judged(folder, words, *, passages=60, queries=40, seed=0, own_id=False):
    """Write corpus, queries (half train, half test) and qrels; every query has one passage."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    texts = [" ".join(rng.choice(words, size=8)) + f" {i}" for i in range(passages)]
    with (folder / "corpus.jsonl").open("w") as file:
        for i, text in enumerate(texts):
            file.write(json.dumps({"doc_id": f"d{i}", "title": "", "text": text}) + "\n")
    with (folder / "queries.jsonl").open("w") as file:
        for i in range(queries):
            name = f"d{i + 1}" if own_id else f"q{i}"
            text = " ".join(texts[i].split()[:4])
            split = "train" if i % 2 else "test"
            file.write(json.dumps({"query_id": name, "text": text, "split": split}) + "\n")
    with (folder / "qrels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["query_id", "doc_id", "relevance"])
        rows.writerows([f"d{i + 1}" if own_id else f"q{i}", f"d{i}", 1] for i in range(queries))
    return folder
