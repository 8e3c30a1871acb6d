"""A tiny random encoder, and queries whose words mean little but for one."""

import json
import shutil

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from composer.retriever_training.settings import Settings

SUBJECTS = [f"subject{i}" for i in range(12)]
FILLERS = [f"filler{i}" for i in range(15)]
QUICK = Settings(learning_rate=1e-2, steps=40, evaluate_every=10, patience=9, threads=1)


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory):
    """A two-layer random encoder with mean pooling, as sentence-transformers saves one."""
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *SUBJECTS, *FILLERS]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("encoder")
    BertModel(
        BertConfig(
            vocab_size=len(words),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=32,
            initializer_range=0.2,
        )
    ).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    ).save_pretrained(folder)
    kinds = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling")]
    modules = [
        {"idx": int(n), "name": n, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, path, kind in kinds
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
    settings = {"max_seq_length": 32, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    return folder


def subject_pairs(queries=150, *, shuffled=False, seed=0):
    """A query and its passage share their subject; all other words are noise."""
    rng = np.random.default_rng(seed)
    passages = [f"{s} {' '.join(rng.choice(FILLERS, 3))}" for s in SUBJECTS]
    pairs = []
    for i in range(queries):
        subject = i % len(SUBJECTS)
        words = [*rng.choice(FILLERS, 2), SUBJECTS[subject]]
        answer = int(rng.integers(len(SUBJECTS))) if shuffled else subject
        pairs.append((" ".join(rng.permutation(words)), passages[answer]))
    return pairs


@pytest.fixture
def registry_path(encoder_folder, tmp_path):
    shutil.copytree(encoder_folder, tmp_path / "base")
    (tmp_path / "docs.jsonl").write_text('{"text": "a"}\n')
    path = tmp_path / "experts.yaml"
    path.write_text(
        "version: 1\n"
        "experts:\n"
        "  # the general one\n"
        "  - name: general\n"
        "    kind: retriever\n"
        "    backend: sentence_transformers\n"
        "    model: path:base\n"
        "  - {name: words, kind: retriever, backend: hashing, model: hashing}\n"
        "stores:\n"
        "  - name: papers\n"
        "    passages: docs.jsonl\n"
        "    retrievers: [general]  # more to come\n"
    )
    return path


def write_pairs(path, pairs):
    path.write_text("".join(json.dumps({"query": q, "passage": p}) + "\n" for q, p in pairs))
    return path
