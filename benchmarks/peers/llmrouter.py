"""LLMRouter's kNN, SVM and MLP: classifiers of the embedding into the best expert.

Feng et al., "LLMRouter", https://github.com/ulab-uiuc/LLMRouter, package llmrouter-lib 0.4.0. Where
the package can be imported its own routers and trainers are run, with its published configuration;
elsewhere the same estimators are trained on the same labels. Two settings that change time but no
choice are set for both: ``n_jobs`` 1 instead of all cores, and ``probability`` off for the SVM,
whose probabilities routing does not use.

The label of a query is the first expert that reached the best quality: so the package does it.
Which comes first is up to the table, and decides much where many are right; here the experts are
listed best on average first, the kindest order. The heads have no knob for cost: each is one point.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experts_registry.types import FloatArray
from peers.method import IntArray, Method, Queries
from routers.data import RoutingDataset

__all__ = ["LLMRouter", "is_installed"]

Head = Literal["knn", "svm", "mlp"]
PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "knn": {"n_neighbors": 5, "weights": "uniform", "metric": "minkowski", "p": 2, "n_jobs": 1},
    "svm": {"kernel": "rbf", "C": 1.0, "gamma": "scale"},
    "mlp": {
        "hidden_layer_sizes": [128, 64],
        "activation": "relu",
        "lr": 0.001,
        "epochs": 100,
        "batch_size": 32,
        "alpha": 0.0001,
    },
}
_CLASSES = {
    "knn": ("KNNRouter", "KNNRouterTrainer"),
    "svm": ("SVMRouter", "SVMRouterTrainer"),
    "mlp": ("MLPRouter", "MLPTrainer"),
}

Predict = Callable[[FloatArray], IntArray]


def is_installed() -> bool:
    """Say whether the package is there."""
    return importlib.util.find_spec("llmrouter") is not None


@dataclass(kw_only=True)
class LLMRouter(Method):
    """One of the package's classification heads.

    Args:
        head: which.
        real: run the package's own classes; else what they do.
        seed: of the MLP.
    """

    head: Head
    real: bool
    seed: int = 0

    def __post_init__(self) -> None:
        self.name = f"LLMRouter {self.head}"

    def fit(self, data: RoutingDataset, queries: Queries) -> None:
        """Learn from outcomes."""
        train = _train_package if self.real else _train_again
        order = np.argsort(-data.quality.mean(axis=0), kind="stable")
        ranked = data.only([data.experts[i] for i in order])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs to heed
            predict = train(self.head, ranked, queries.x, self.seed)
        self._predict: Predict = lambda x: order[predict(x)]

    def choose(self, queries: Queries) -> IntArray:
        """Choose where cost has no weight, (n,)."""
        return self._predict(queries.x)


def _train_again(head: str, data: RoutingDataset, x: FloatArray, seed: int) -> Predict:
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC

    given = PARAMETERS[head]
    best = data.quality.argmax(axis=1)
    if len(np.unique(best)) == 1:
        return lambda z: np.full(len(z), best[0])
    label = np.array(data.experts)[best]  # names, because equal votes go by their order
    column = {name: i for i, name in enumerate(data.experts)}
    if head == "knn":
        model = KNeighborsClassifier(**given)
    elif head == "svm":
        model = SVC(**given)
    else:
        model = MLPClassifier(
            tuple(given["hidden_layer_sizes"]),
            learning_rate_init=given["lr"],
            batch_size=min(given["batch_size"], len(x)),
            # torch adds weight decay to the gradient; scikit-learn divides it by the batch first.
            alpha=given["alpha"] * given["batch_size"],
            max_iter=given["epochs"],
            n_iter_no_change=given["epochs"],
            random_state=seed,
        )
    model.fit(x, label)
    return lambda z: np.array([column[name] for name in model.predict(z).tolist()])


def _train_package(head: str, data: RoutingDataset, x: FloatArray, seed: int) -> Predict:
    """Write the files that the package reads, and have it train."""
    import torch

    models = importlib.import_module("llmrouter.models")
    router_class, trainer_class = (getattr(models, name) for name in _CLASSES[head])
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        config = _write(Path(folder), head, data, torch.tensor(np.asarray(x, dtype=np.float32)))
        router = router_class(str(config))
        trainer = trainer_class(router)
        trainer.train()
    model = trainer.model
    column = {name: i for i, name in enumerate(data.experts)}
    if head != "mlp":
        return lambda z: np.array([column[name] for name in model.predict(z)])
    known = np.array([column[router.idx_to_model[i]] for i in range(router.num_classes)])
    return lambda z: known[model.predict(torch.from_numpy(np.asarray(z, np.float32))).numpy()]


def _write(folder: Path, head: str, data: RoutingDataset, x: Any) -> Path:
    import torch
    import yaml

    torch.save(x, folder / "embeddings.pt")
    with (folder / "outcomes.jsonl").open("w") as file:
        for row, name in enumerate(data.ids):  # ids stand for texts: only their identity is used
            for expert, quality in zip(data.experts, data.quality[row].tolist(), strict=True):
                line = {"query": name, "model_name": expert, "performance": quality}
                file.write(json.dumps(line | {"embedding_id": row}) + "\n")
    saved = str(folder / "model.pkl")
    config = {
        "data_path": {
            "routing_data_train": str(folder / "outcomes.jsonl"),
            "query_embedding_data": str(folder / "embeddings.pt"),
        },
        "model_path": {"ini_model_path": "", "save_model_path": saved, "load_model_path": saved},
        "metric": {"weights": {"performance": 1, "cost": 0, "llm_judge": 0}},
        "hparam": dict(PARAMETERS[head]),
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
