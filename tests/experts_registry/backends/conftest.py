"""Two tiny random models, built here: a language model and an encoder."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from experts_registry.schema import ExpertSpec

CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<pad>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


@pytest.fixture(scope="session")
def tokenizer():
    """A byte-level tokenizer: any character, most of them in several tokens."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        ["the capital of France is Paris"],
        trainers.BpeTrainer(
            vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|end|>", pad_token="<pad>", chat_template=CHAT
    )


@pytest.fixture(scope="session")
def llama(tokenizer, tmp_path_factory):
    """A folder with a two-layer random language model of 256 positions."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        initializer_range=0.2,
    )
    folder = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """A folder with a two-layer random encoder."""
    torch.manual_seed(0)
    words = ["the", "a", "capital", "of", "france", "is", "paris", "what", "where", "?", "red"]
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    folder = tmp_path_factory.mktemp("bert")
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(bert, tmp_path):
    """Build the folder of an adapter of an encoder with random weights, as PEFT saves it."""
    peft = pytest.importorskip("peft")

    def build(name="adapter", *, base=bert, seed=0, config=None, **keys):
        torch.manual_seed(seed)
        usual = {"r": 4, "lora_alpha": 16, "target_modules": ["query", "value"]}
        plain = peft.LoraConfig(**{**usual, **keys}, init_lora_weights=False)
        model = peft.get_peft_model(AutoModel.from_pretrained(base), config or plain)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data *= 4  # so that the adapter tells
        model.save_pretrained(tmp_path / name)
        return tmp_path / name

    return build


@pytest.fixture
def spec():
    """Build the entry of an expert."""

    def build(backend, model="none", *, kind="llm", **keys):
        return ExpertSpec(name="x", kind=kind, backend=backend, model=model, **keys)

    return build
