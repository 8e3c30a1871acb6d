import shutil

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from experts_registry.backends.cross_encoder import CrossEncoderReranker
from experts_registry.errors import ExpertUnavailableError, ModelSourceError, RegistryError
from experts_registry.types import Reranker

QUERY = "what is the capital of france ?"
TEXTS = ["red", "paris is the capital of france", "the a of", "paris " * 300, "🙂", "lone \ud800"]


def classifier(bert, folder, labels=1):
    """Make a folder with a random cross-encoder over the encoder's tokenizer."""
    shutil.copytree(bert, folder)
    (folder / "model.safetensors").unlink()
    torch.manual_seed(1)
    config = BertConfig.from_pretrained(bert, num_labels=labels, initializer_range=0.5)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(bert, tmp_path_factory):
    return classifier(bert, tmp_path_factory.mktemp("cross") / "model")


@pytest.fixture
def reranker(spec):
    def build(folder, **options):
        return CrossEncoderReranker(
            spec("cross_encoder", f"path:{folder}", kind="reranker", options=options)
        )

    return build


def reference(folder, query, texts, length=64):
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return [
            torch.sigmoid(
                model(
                    **tokenizer(
                        query,
                        text.encode(errors="replace").decode(),
                        truncation=True,
                        max_length=length,
                        return_tensors="pt",
                    )
                ).logits
            ).item()
            for text in texts
        ]


def test_scores_are_those_of_the_model(folder, reranker):
    ranker = reranker(folder, batch_size=2)
    assert isinstance(ranker, Reranker)
    scores = ranker.relevance(QUERY, TEXTS)
    np.testing.assert_allclose(scores, reference(folder, QUERY, TEXTS), atol=1e-5)
    assert scores.dtype == np.float32
    assert scores.std() > 0.01


def test_only_as_many_tokens_as_the_file_says_are_read(folder, reranker):
    scores = reranker(folder, max_length=12).relevance(QUERY, TEXTS)
    np.testing.assert_allclose(scores, reference(folder, QUERY, TEXTS, length=12), atol=1e-5)


def test_no_texts_have_no_scores(folder, reranker):
    assert reranker(folder).relevance(QUERY, []).shape == (0,)


def test_a_closed_reranker_refuses(folder, reranker):
    ranker = reranker(folder)
    ranker.load()
    ranker.close()
    with pytest.raises(ExpertUnavailableError, match="closed"):
        ranker.relevance(QUERY, TEXTS)


def test_what_is_no_reranker_is_refused(bert, tmp_path, folder, reranker):
    with pytest.raises(ModelSourceError, match="has 3 labels, and a reranker has one"):
        reranker(classifier(bert, tmp_path / "three", labels=3)).relevance(QUERY, TEXTS)
    with pytest.raises(RegistryError, match="did you mean 'batch_size'"):
        reranker(folder, batch_sise=3)
