"""Train retrieval gates on real outcomes, and judge them beside what they have to beat.

    python benchmarks/gating.py [FOLDER] [--outcomes qa.parquet ...] [--price 0.02]

First on FOLDER/qa_gating: recorded answers of Llama-3.1-8B-Instruct without retrieval and with one
BM25 retrieval over Wikipedia, nothing but the question known. Then on outcomes that
``collect --with-and-without`` or benchmarks/gating_data.py made, a file each. Where rows say
``train`` or ``test``, that is kept; otherwise a fifth of the queries is held out.
"""

import argparse
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from category_router import CachedEncoder
from peers.encoders import minilm

from composer.gate_evaluation import evaluate_gate
from composer.gate_report import gate_lines
from routers.gates.data import GateData
from routers.gates.price import RetrievalPrice
from routers.gates.split import split_gate_data
from routers.gating import Gate


def main() -> None:
    """Print a table for each set of outcomes."""
    args = _arguments()
    encoder, price = CachedEncoder(minilm()), RetrievalPrice(per_retrieval=args.price)
    sets = {} if args.folder is None else {"qa_gating": recorded(args.folder / "qa_gating")}
    sets |= {str(path): GateData.load(path) for path in args.outcomes}
    for name, data in sets.items():
        began = time.perf_counter()
        train, test = split_gate_data(data)
        gate = Gate.fit(train, encoder, price=price)
        print(f"\n{name} (fitted in {time.perf_counter() - began:.0f} s)")
        for report in evaluate_gate(gate, train, test):
            print("\n".join(gate_lines(report)))


def recorded(folder: Path) -> GateData:
    """Read published answers of one language model without and with retrieval."""
    rows: list[dict[str, Any]] = []
    with gzip.open(folder / "data.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in map(json.loads, file):
            for arm, key in (("llama", "none_correct"), ("llama+wikipedia", "single_correct")):
                rows.append(
                    {
                        "query_id": line["query_id"],
                        "query": line["question"],
                        "category": line["dataset"],
                        "split": line["split"],
                        "expert": arm,
                        "quality": float(line[key]),
                    }
                )
    return GateData.of(rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--outcomes", nargs="*", type=Path, default=[])
    parser.add_argument("--price", type=float, default=0.02)
    np.set_printoptions(precision=3, suppress=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
