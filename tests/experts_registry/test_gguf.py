import errno
import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from experts_registry import ExpertSpec
from experts_registry.errors import ModelSourceError
from experts_registry.sources import locate, source_digest

HIDDEN, FFN, HEADS, LAYERS = 64, 128, 4, 2
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


def write_llama(path, layers=LAYERS):
    """Write a random two-layer llama with a byte-level tokenizer; its header says ``layers``."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokens = ["<s>", "</s>", *bytes_to_unicode().values(), "he", "lo"]
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges(["h e", "l o"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(TEMPLATE)
    shapes = {"token_embd": (len(tokens), HIDDEN), "output_norm": (HIDDEN,)}
    for i in range(LAYERS):
        shapes |= {f"blk.{i}.{name}": (HIDDEN, HIDDEN) for name in ("attn_q", "attn_k", "attn_v")}
        shapes |= {f"blk.{i}.attn_output": (HIDDEN, HIDDEN)}
        shapes |= {f"blk.{i}.{name}": (FFN, HIDDEN) for name in ("ffn_gate", "ffn_up")}
        shapes |= {f"blk.{i}.ffn_down": (HIDDEN, FFN)}
        shapes |= {f"blk.{i}.{name}": (HIDDEN,) for name in ("attn_norm", "ffn_norm")}
    for name, shape in shapes.items():
        values = random.normal(0, 0.1, shape).astype(np.float32)
        packed = len(shape) == 2
        writer.add_tensor(
            f"{name}.weight",
            gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0) if packed else values,
            raw_dtype=gguf.GGMLQuantizationType.Q8_0 if packed else None,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EXPERT_COMPOSER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def spec(*sources, **keys):
    return ExpertSpec(
        name="tiny",
        kind="llm",
        backend="transformers",
        model=sources[0] if len(sources) == 1 else sources,
        **keys,
    )


def split(model, folder, pieces=3):
    content = model.read_bytes()
    step = len(content) // pieces + 1
    paths = [folder / f"tiny.part{i}" for i in range(pieces)]
    for i, path in enumerate(paths):
        path.write_bytes(content[i * step : (i + 1) * step])
    return [f"path:{path}" for path in paths]


def logits(folder):
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return network(torch.arange(8)[None]).logits


def test_a_file_becomes_a_plain_model_folder(model, caplog):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    caplog.set_level(logging.INFO)
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    folder = Path(locate(spec(f"path:{model}", sha256=digest)))
    assert folder.name == f"{digest[:32]}-1"
    assert (folder / "model.safetensors").is_file()
    network = AutoModelForCausalLM.from_pretrained(folder)
    assert network.dtype == torch.float16
    assert not hasattr(network.config, "quantization_config")
    down = next(t for t in gguf.GGUFReader(model).tensors if t.name == "blk.1.ffn_down.weight")
    written = network.model.layers[1].mlp.down_proj.weight.detach().numpy()
    np.testing.assert_allclose(written, gguf.dequantize(down.data, down.tensor_type), atol=1e-3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.decode(tokenizer("hello you")["input_ids"]) == "hello you"
    assert [r.message.split()[0] for r in caplog.records if "gguf" in r.name] == [
        "unpacking",
        "unpacked",
    ]


def test_parts_are_joined_and_give_the_same_model(model, tmp_path, cache):
    parts = split(model, tmp_path)
    folder = locate(spec(*parts))
    assert (logits(folder) == logits(locate(spec(f"path:{model}")))).all()
    assert source_digest(spec(*parts)) == source_digest(spec(f"path:{model}"))
    assert len([p for p in (cache / "models").iterdir() if p.is_dir()]) == 1
    assert not list(Path(folder).glob("*.gguf"))


def test_a_converted_model_is_not_converted_again(model):
    folder = Path(locate(spec(f"path:{model}")))
    (folder / "note").write_text("kept")
    assert locate(spec(f"path:{model}")) == str(folder)
    assert (folder / "note").exists()


def test_what_a_killed_run_left_is_built_anew(model, cache):
    digest = source_digest(spec(f"path:{model}"))
    left = cache / "models" / f"{digest[:32]}-1.partial"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    assert (Path(locate(spec(f"path:{model}"))) / "config.json").is_file()
    assert not left.exists()


def test_two_processes_share_one_conversion(model, cache):
    code = (
        "import logging, sys; logging.basicConfig(level='INFO')\n"
        "from experts_registry import ExpertSpec\n"
        "from experts_registry.sources import locate\n"
        f"s = ExpertSpec(name='t', kind='llm', backend='transformers', model='path:{model}')\n"
        "print(locate(s))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(2)
    ]
    replies = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert replies[0][0] == replies[1][0]
    assert sum("unpacked" in log for _, log in replies) == 1


def test_a_wrong_digest_is_refused_before_anything_is_unpacked(model, cache):
    with pytest.raises(
        ModelSourceError, match=r"expert 'tiny': sha256 of tiny.gguf is \w{12}\.\.\."
    ):
        locate(spec(f"path:{model}", sha256="0" * 64))
    assert not (cache / "models").exists()


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_named_as_such(model, tmp_path, cache, share):
    content = model.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelSourceError, match=r"cut.gguf: is a truncated or damaged GGUF"):
        locate(spec(f"path:{cut}"))
    assert not [p for p in (cache / "models").iterdir() if p.is_dir()]


def test_a_missing_middle_part_is_noticed(model, tmp_path):
    first, _, third = split(model, tmp_path)
    with pytest.raises(ModelSourceError, match=r"truncated or damaged"):
        locate(spec(first, third))


def test_a_file_that_lacks_weights_is_refused(tmp_path, cache):
    path = write_llama(tmp_path / "short.gguf", layers=LAYERS + 1)
    with pytest.raises(ModelSourceError, match=r"short.gguf: holds no model.layers.2\..* 8 more"):
        locate(spec(f"path:{path}"))
    assert not [p for p in (cache / "models").iterdir() if p.is_dir()]


def test_a_file_of_another_kind_is_refused(tmp_path):
    page = tmp_path / "model.gguf"
    page.write_bytes(b"<html>Not found</html>")
    with pytest.raises(ModelSourceError, match=r"is not a GGUF file: it begins with b'<htm'"):
        locate(spec(f"path:{page}"))
    page.write_bytes(b"")
    with pytest.raises(ModelSourceError, match=r"is not a GGUF file: it is empty"):
        locate(spec(f"path:{page}"))


def test_an_architecture_that_transformers_lacks_is_named(tmp_path):
    path = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(path, "perceptron")
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelSourceError, match=r"transformers cannot unpack .*perceptron"):
        locate(spec(f"path:{path}"))


def test_a_cache_that_cannot_be_written_is_named(model, cache):
    cache.write_text("a file is in the way")
    with pytest.raises(ModelSourceError, match=r"cannot be written .*set EXPERT_COMPOSER_CACHE"):
        locate(spec(f"path:{model}"))


def test_a_full_disk_is_named_and_leaves_nothing(model, cache, monkeypatch):
    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full)
    with pytest.raises(ModelSourceError, match=r"the disk is full; free some gigabytes"):
        locate(spec(f"path:{model}"))
    assert not [p for p in (cache / "models").iterdir() if p.is_dir()]


def test_a_missing_extra_names_what_to_install(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ModelSourceError, match=r"accelerate; run: pip install 'expert-composer\[g"):
        locate(spec(f"path:{model}"))
