import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from experts_registry.backends.sentence_transformers import SentenceTransformersEmbedder
from experts_registry.errors import ArtefactError, ModelSourceError, RegistryError

peft = pytest.importorskip("peft")

# Of transformers, about itself.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is:FutureWarning")

TEXTS = ["what is the capital of france ?", "red", "", "paris " * 60, "the a of where"] * 3


@pytest.fixture
def embedder(spec, bert):
    def build(base=bert, **options):
        if "adapter" in options:
            options["adapter"] = f"path:{options['adapter']}"
        return SentenceTransformersEmbedder(
            spec("sentence_transformers", f"path:{base}", kind="retriever", options=options)
        )

    return build


def by_peft(base, folder, texts):
    """Return the vectors that PEFT computes, mean pooled and of unit length."""
    model = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(base), str(folder)).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    features = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.inference_mode():
        states = model(**features).last_hidden_state
    mask = features["attention_mask"].unsqueeze(-1)
    mean = (states * mask).sum(dim=1) / mask.sum(dim=1)
    return torch.nn.functional.normalize(mean, dim=-1).numpy()


def rewritten(folder, **keys):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
    return folder


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"target_modules": ["query", "key", "value", "dense"], "r": 8},
        {"use_rslora": True},
        {"alpha_pattern": {"query": 32}, "rank_pattern": {"layer.1.attention.self.value": 2}},
        {"layers_to_transform": [1]},
    ],
)
def test_an_adapted_query_is_what_peft_computes(bert, adapter, embedder, config):
    folder = adapter(**config)
    x = embedder(adapter=folder).embed(TEXTS, role="query")
    np.testing.assert_allclose(x, by_peft(bert, folder, TEXTS), atol=1e-5)
    assert np.abs(x - embedder().embed(TEXTS, role="query")).max() > 0.05


def test_an_adapter_saved_by_sentence_transformers_is_read(bert, embedder, tmp_path):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(bert), device="cpu")
    config = peft.LoraConfig(
        r=4,
        target_modules=["query", "value"],
        init_lora_weights=False,
        task_type="FEATURE_EXTRACTION",
    )
    model.add_adapter(config)
    model.save_pretrained(str(tmp_path / "saved"))
    expected = model.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    x = embedder(adapter=tmp_path / "saved").embed(TEXTS, role="query")
    np.testing.assert_allclose(x, expected, atol=1e-5)


def test_passages_are_the_bases_and_share_its_index(adapter, embedder):
    base, adapted = embedder(), embedder(adapter=adapter())
    passages = adapted.embed(TEXTS, role="passage")
    np.testing.assert_array_equal(passages, base.embed(TEXTS, role="passage"))
    assert adapted.passage_digest == base.passage_digest == base.digest != adapted.digest


def test_an_adapter_of_both_roles_has_passages_of_its_own(adapter, embedder):
    base, both = embedder(), embedder(adapter=adapter(), adapts="both")
    x = both.embed(TEXTS, role="query")
    np.testing.assert_array_equal(both.embed(TEXTS, role="passage"), x)
    assert both.passage_digest not in {base.digest, embedder(adapter=adapter()).passage_digest}


def test_a_prompt_for_queries_alone_leaves_the_index_shared(embedder):
    base, asks = embedder(), embedder(query_prompt="what is ")
    assert asks.digest != base.digest
    assert asks.passage_digest == base.passage_digest


def test_the_digest_knows_the_adapters_weights(adapter, embedder):
    one, same, other = adapter("a"), adapter("b"), adapter("c", seed=1)
    assert embedder(adapter=one).digest == embedder(adapter=same).digest
    assert embedder(adapter=one).digest != embedder(adapter=other).digest
    rescaled = rewritten(same, lora_alpha=3)
    assert embedder(adapter=one).digest != embedder(adapter=rescaled).digest


def test_threads_with_different_adapters_get_their_own_vectors(adapter, embedder):
    experts = [embedder(), *(embedder(adapter=adapter(f"a{i}", seed=i)) for i in range(3))]
    alone = [expert.embed(TEXTS, role="query") for expert in experts]
    barrier = threading.Barrier(8)

    def embed(i):
        barrier.wait(10)
        return [experts[i % 4].embed(TEXTS, role="query") for _ in range(5)]

    with ThreadPoolExecutor(8) as threads:
        for i, found in enumerate(threads.map(embed, range(8))):
            for x in found:
                np.testing.assert_array_equal(x, alone[i % 4])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"peft_type": "IA3"}, "PEFT type 'IA3'; only LORA"),
        ({"use_dora": True}, "LoRA with use_dora"),
        ({"bias": "all"}, "LoRA with bias"),
        ({"init_lora_weights": "pissa"}, "LoRA with init_lora_weights"),
    ],
)
def test_other_kinds_of_adapters_are_refused_when_opened(adapter, embedder, keys, message):
    folder = rewritten(adapter(), **keys)
    with pytest.raises(ArtefactError, match=f"expert 'x': options.adapter: .*{message}"):
        embedder(adapter=folder)


def test_an_ia3_adapter_of_pefts_is_refused(adapter, embedder):
    folder = adapter(config=peft.IA3Config(target_modules=["key"], feedforward_modules=[]))
    with pytest.raises(ArtefactError, match="PEFT type 'IA3'"):
        embedder(adapter=folder)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_without_its_files_is_refused_when_opened(adapter, embedder, name):
    folder = adapter()
    (folder / name).unlink()
    with pytest.raises(ArtefactError, match=name):
        embedder(adapter=folder)


def test_a_missing_folder_is_named(embedder, tmp_path):
    with pytest.raises(ModelSourceError, match=r"expert 'x': options\.adapter: .*does not exist"):
        embedder(adapter=tmp_path / "none")


def test_an_adapter_on_the_hub_is_refused(spec, bert):
    options = {"adapter": "somebody/adapter"}
    with pytest.raises(RegistryError, match="write path:<folder>"):
        SentenceTransformersEmbedder(
            spec("sentence_transformers", f"path:{bert}", kind="retriever", options=options)
        )


def test_damaged_weights_are_an_artefact_error(adapter, embedder):
    folder = adapter()
    (folder / "adapter_model.safetensors").write_bytes(b"oops")
    with pytest.raises(ArtefactError, match="cannot be read"):
        embedder(adapter=folder).load()


def test_weights_that_are_not_loras_are_refused(adapter, embedder):
    path = adapter() / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "base_model.model.pooler.dense.bias": torch.zeros(32)}, path)
    with pytest.raises(ArtefactError, match=r"holds base_model\.model\.pooler\.dense\.bias"):
        embedder(adapter=path.parent).load()


@pytest.fixture
def other_base(bert, tmp_path):
    """Build an encoder beside the usual one: other weights, sizes or depth."""

    def build(**config):
        torch.manual_seed(1)
        folder = tmp_path / "other"
        BertModel(BertConfig.from_pretrained(bert, **config)).save_pretrained(folder)
        AutoTokenizer.from_pretrained(bert).save_pretrained(folder)
        return folder

    return build


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": 16}, "maps 16 to 16 there, and 32 to 32 here"),
        ({"num_hidden_layers": 1}, r"no linear layer encoder\.layer\.1"),
    ],
)
def test_an_adapter_of_another_base_does_not_fit(adapter, embedder, other_base, config, message):
    folder = rewritten(adapter(), base_model_name_or_path="/somewhere/else")
    with pytest.raises(ArtefactError, match=f"does not fit the model, .*{message}"):
        embedder(other_base(**config), adapter=folder).load()


def test_an_adapter_of_a_base_of_the_same_shape_does_not_fit(adapter, embedder, other_base):
    with pytest.raises(ArtefactError, match=r"trained on .*, which holds other weights"):
        embedder(other_base(), adapter=adapter()).load()


def test_adapts_needs_an_adapter(embedder):
    with pytest.raises(RegistryError, match="name it as adapter, or remove it"):
        embedder(adapts="both")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_an_adapter_runs_on_the_gpu(bert, adapter, embedder):
    folder = adapter()
    x = embedder(adapter=folder, device="cuda").embed(TEXTS, role="query")
    np.testing.assert_allclose(x, by_peft(bert, folder, TEXTS), atol=1e-3)
