import gc
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertModel,
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    MPNetConfig,
    MPNetModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from experts_registry.backends.sentence_transformers import SentenceTransformersEmbedder
from experts_registry.backends.shared_weights import lowest_layers, shared
from experts_registry.errors import RegistryError

# Of transformers, about itself.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is:FutureWarning")

TEXTS = ["what is the capital of france ?", "red", "", "paris " * 60]


class Thing:
    """Something that can be freed."""


def test_a_thing_is_loaded_once_and_freed_with_its_last_holder():
    loads = []

    def load():
        loads.append(1)
        return Thing()

    one, two = shared("thing", load), shared("thing", load)
    assert one is two
    del one
    assert shared("thing", load) is two
    del two
    gc.collect()
    shared("thing", load)
    assert len(loads) == 2


def test_threads_that_ask_at_once_share_one_load():
    barrier, loads = threading.Barrier(6), []

    def load():
        loads.append(1)
        return Thing()

    def ask(_):
        barrier.wait(10)
        return shared("raced", load)

    with ThreadPoolExecutor(6) as threads:
        things = list(threads.map(ask, range(6)))
    assert len(set(map(id, things))) == len(loads) == 1


def test_a_load_that_fails_may_be_tried_again():
    def fail():
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        shared("failing", fail)
    assert isinstance(shared("failing", Thing), Thing)


@pytest.fixture
def embedder(spec, bert):
    def build(base=bert, **options):
        return SentenceTransformersEmbedder(
            spec("sentence_transformers", f"path:{base}", kind="retriever", options=options)
        )

    return build


def big(bert, folder):
    """Make an encoder of 60 MB."""
    config = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 5}
    BertModel(BertConfig.from_pretrained(bert, **config)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(bert).save_pretrained(folder)
    return folder


def test_experts_of_one_base_take_the_memory_of_one(bert, embedder, adapter, tmp_path):
    base = big(bert, tmp_path / "big")
    kinds = [
        {},
        *({"adapter": f"path:{adapter(f'a{i}', base=base)}"} for i in range(4)),
        {"layers": 1},
    ]
    size = sum(f.stat().st_size for f in base.glob("*.safetensors"))
    embedder(base).embed(TEXTS, role="query")  # what the first forward pass leaves behind
    gc.collect()
    experts = [embedder(base, **options) for options in kinds]
    experts[0].embed(TEXTS, role="query")
    before = psutil.Process().memory_info().rss
    for expert in experts[1:]:
        expert.embed(TEXTS, role="query")
    assert psutil.Process().memory_info().rss - before < size / 2


def weights(model):
    return {parameter.data_ptr() for parameter in model.parameters()}


def test_what_is_derived_holds_the_weights_of_the_base(bert, embedder, adapter):
    def live():
        return [o for o in gc.get_objects() if type(o) is torch.nn.Parameter]

    gc.collect()
    before = {id(parameter) for parameter in live()}
    experts = [embedder(), embedder(adapter=f"path:{adapter()}"), embedder(layers=1)]
    for expert in experts:
        expert.load()
    new = {parameter.data_ptr() for parameter in live() if id(parameter) not in before}
    assert len(new) == len(list(AutoModel.from_pretrained(bert).parameters()))


def test_the_base_is_freed_when_the_last_expert_closes(bert, embedder):
    def alive():
        gc.collect()
        return sum(type(o) is BertModel for o in gc.get_objects())

    before = alive()
    one, two, three = embedder(), embedder(query_prompt="red "), embedder(layers=1)
    for expert in (one, two, three):
        expert.load()
    assert alive() == before + 2  # the base, and the modules of the lowest layer
    one.close()
    two.close()
    assert alive() == before + 2
    x = three.embed(TEXTS, role="query")
    assert np.isfinite(x).all()
    three.close()
    assert alive() == before


def test_another_dtype_is_another_base(embedder):
    whole, half = embedder(), embedder(dtype="bfloat16")
    x = whole.embed(TEXTS, role="query")
    half.load()
    np.testing.assert_array_equal(whole.embed(TEXTS, role="query"), x)
    assert not np.array_equal(half.embed(TEXTS, role="query"), x)


def test_experts_of_one_base_read_texts_of_different_length(embedder):
    long, short = embedder(), embedder(max_length=4)
    text = ["paris red blue where france"]
    x = long.embed(text, role="query")
    assert not np.allclose(short.embed(text, role="query"), x)
    np.testing.assert_array_equal(long.embed(text, role="query"), x)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_the_lowest_layers_are_pooled(bert, embedder, n):
    model, tokenizer = AutoModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)
    features = tokenizer(TEXTS, padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.inference_mode():
        states = model(**features, output_hidden_states=True).hidden_states[n]
    mask = features["attention_mask"].unsqueeze(-1)
    mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
    expected = torch.nn.functional.normalize(mean, dim=-1).numpy()
    np.testing.assert_allclose(embedder(layers=n).embed(TEXTS, role="query"), expected, atol=1e-6)


def test_fewer_layers_are_another_digest(embedder):
    found = [embedder(**options) for options in ({}, {"layers": 0}, {"layers": 1})]
    assert len({e.digest for e in found}) == len({e.passage_digest for e in found}) == 3


def test_more_layers_than_there_are_is_an_error(embedder):
    with pytest.raises(RegistryError, match=r"options\.layers: 3: the model has 2 layers, so use"):
        embedder(layers=3).load()


SMALL = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}


@pytest.mark.parametrize(
    "model",
    [
        XLMRobertaModel(XLMRobertaConfig(**SMALL, num_hidden_layers=3)),
        MPNetModel(MPNetConfig(**SMALL, num_hidden_layers=3)),
        DistilBertModel(
            DistilBertConfig(vocab_size=50, dim=32, hidden_dim=64, n_heads=2, n_layers=3)
        ),
    ],
    ids=lambda model: type(model).__name__,
)
def test_layers_are_found_in_the_usual_architectures(model):
    model = model.eval()
    tokens = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3).long()}
    with torch.inference_mode():
        states = model(**tokens, output_hidden_states=True).hidden_states[2]
        found = lowest_layers(model, 2)(**tokens).last_hidden_state
    torch.testing.assert_close(found, states)
    assert weights(lowest_layers(model, 2)) < weights(model)


def test_layers_that_cannot_be_found_are_an_error():
    config = AlbertConfig(**SMALL, embedding_size=16, num_hidden_layers=3)
    with pytest.raises(ValueError, match="cannot be found in a AlbertModel"):
        lowest_layers(AlbertModel(config), 1)


@pytest.mark.parametrize("option", ["adapter", "layers"])
def test_a_packaged_model_has_neither(bert, embedder, adapter, tmp_path, option):
    base = tmp_path / "packaged"
    base.mkdir()
    for file in bert.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    modules = ("Transformer", ""), ("Pooling", "1_Pooling")
    (base / "modules.json").write_text(
        json.dumps(
            [
                {
                    "idx": i,
                    "name": str(i),
                    "path": path,
                    "type": f"sentence_transformers.models.{m}",
                }
                for i, (m, path) in enumerate(modules)
            ]
        )
    )
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling/config.json").write_text(
        json.dumps({"word_embedding_dimension": 32, "pooling_mode": "max"})
    )
    options = {"adapter": f"path:{adapter(base=base)}"} if option == "adapter" else {"layers": 1}
    with pytest.raises(RegistryError, match=rf"options\.{option}: .*sentence_transformers package"):
        embedder(base, **options).load()
