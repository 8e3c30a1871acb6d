import numpy as np
import pytest

from composer.opened import Opened
from composer.retriever_training.expert import train_expert
from composer.retriever_training.material import Parts, of_pairs
from composer.retriever_training.pilots import scores
from composer.retriever_training.registering import Newcomer
from composer.retriever_training.training import Trained
from experts_registry.registry import Registry
from routers.base import load_router
from routers.data import RoutingDataset
from routers.pilot import PilotRouter
from tests.composer.retriever_training.conftest import FILLERS, QUICK, SUBJECTS, subject_pairs

pytest.importorskip("peft", reason="needs expert-composer[lora]")


def outcomes(n=40):
    """General is good at what is filler only, words at subjects."""
    rng = np.random.default_rng(0)
    words = [FILLERS if i % 2 else SUBJECTS[:6] for i in range(n)]
    return RoutingDataset(
        queries=tuple(f"{' '.join(rng.choice(w, 3))} {i}" for i, w in enumerate(words)),
        experts=("general", "words"),
        quality=np.array([[0.9, 0.1] if i % 2 else [0.2, 0.8] for i in range(n)]),
        category=tuple("filler" if i % 2 else "subject" for i in range(n)),
        ids=tuple(f"old/{i}" for i in range(n)),
        cost_unit="",
    )


def test_the_pilot_router_of_its_store_knows_it_at_once(registry_path):
    text = registry_path.read_text().replace("version: 1", "version: 1\nencoder: general")
    registry_path.write_text(text + "    router: routers/pilot\n")
    registry = Registry.load(registry_path)
    folder = registry_path.parent / "routers/pilot"
    opened = Opened(registry)
    try:
        encoder = opened.embedder("general")
        PilotRouter(encoder=encoder).fit(outcomes()).save(folder)
        newcomer = Newcomer(
            registry=registry,
            name="bio",
            base="general",
            folder=registry_path.parent / "retrievers/bio",
            domains=("biology",),
            stores=("papers",),
        )
        one_step = QUICK.model_copy(update={"steps": 1})
        expert = train_expert(newcomer, of_pairs(subject_pairs()), one_step, force=True, quiet=True)
        assert expert.routers == (folder,)
        router = load_router(folder, encoder=encoder)
    finally:
        opened.close()
    assert set(router.experts_) == {"general", "words", "bio"}
    assert "biology" in router.categories_
    assert len(router.matrix.ids) == 40 + expert.trained.report["data"]["held_out"]


def test_other_queries_of_the_same_domain_are_not_taken_for_known_ones(registry_path):
    text = registry_path.read_text().replace("version: 1", "version: 1\nencoder: general")
    registry_path.write_text(text)
    opened = Opened(Registry.load(registry_path))
    tables = []
    try:
        for seed in (0, 1):
            material = of_pairs(subject_pairs(seed=seed))
            vectors = opened.embedder("general").embed(material.passages, role="passage")
            parts, digest = Parts((), tuple(range(20))), opened.embedder("general").digest
            trained = Trained(None, parts, {}, vectors, digest)
            tables.append(scores(opened, ["general", "words"], material, trained, "biology"))
    finally:
        opened.close()
    first, second = ({*zip(t.ids, t.queries, strict=True)} for t in tables)
    assert not {name for name, _ in first - second} & {name for name, _ in second - first}
