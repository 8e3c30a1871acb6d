"""Load and run a model in this process, and say what to change when either fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from experts_registry.errors import (
    CapacityError,
    ExpertUnavailableError,
    ModelSourceError,
    RegistryError,
)
from experts_registry.schema import ExpertSpec
from experts_registry.sources import find, is_local, locate

__all__ = [
    "DTYPES",
    "LoadedModel",
    "bounded",
    "computing",
    "encodable",
    "hub_arguments",
    "load_model",
    "loading",
    "pick_device",
]

# Longer than any tokenizer's tokens on average: what lies behind would be cut off anyway.
_CHARACTERS_PER_TOKEN = 16

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to decode.

    Args:
        model: in evaluation mode, on its device.
        tokenizer: its own.
        window: most tokens of prompt and answer together, if the model or the file limits them.
        end_ids: tokens that end an answer.
        pad_id: fills shorter rows of a batch; attention never sees it.
    """

    model: Any
    tokenizer: Any
    window: int | None
    end_ids: frozenset[int]
    pad_id: int


def load_model(
    spec: ExpertSpec,
    *,
    device: str,
    dtype: str,
    adapter: str | None,
    revision: str | None,
    trust_remote_code: bool,
    attn_implementation: str | None,
) -> LoadedModel:
    """Load what an expert needs.

    Raises:
        ModelSourceError: the model is missing, damaged, or not a language model.
        CapacityError: the device is missing or too small.
    """
    source = locate(spec)
    target = pick_device(spec, device)
    hub = hub_arguments(spec, revision=revision, trust_remote_code=trust_remote_code)
    with loading(spec):
        tokenizer = AutoTokenizer.from_pretrained(source, **hub)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=_pick_dtype(dtype, target),
            attn_implementation=attn_implementation,
            output_loading_info=True,
            **hub,
        )
        model, report = loaded
        _require_weights(spec, report["missing_keys"])
        if adapter is not None:
            model = _adapted(spec, model, adapter)
        model = model.to(target).eval()
    return _described(spec, model, tokenizer)


def hub_arguments(
    spec: ExpertSpec, *, revision: str | None, trust_remote_code: bool
) -> dict[str, Any]:
    """Return what every ``from_pretrained`` of an expert is called with."""
    arguments: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if revision is not None and not is_local(spec.sources[0]):
        arguments["revision"] = revision
    return arguments


def pick_device(spec: ExpertSpec, device: str) -> torch.device:
    """Return the device to use; ``auto`` is the GPU if there is one.

    Raises:
        CapacityError: it is not here.
        RegistryError: there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = f"expert {spec.name!r}: options.device: {device!r}"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise RegistryError(f"{where} is no device; use auto, cpu, cuda or cuda:0") from error
    is_missing = chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count()
    if is_missing or (chosen.type == "mps" and not torch.backends.mps.is_available()):
        raise CapacityError(f"{where} is not on this machine; use auto or cpu")
    return chosen


def _pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    if dtype != "auto":
        return DTYPES[dtype]
    # The same answers on every CPU, and without bf16 instructions bfloat16 is several times slower.
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def _require_weights(spec: ExpertSpec, missing: Any) -> None:
    """Refuse a model whose missing weights were made up: it would talk at random."""
    if names := sorted(missing):
        raise ModelSourceError(
            f"expert {spec.name!r}: {spec.model!r} holds no weights for {', '.join(names[:3])}"
            f"{' ...' if len(names) > 3 else ''}; it is damaged or not a causal language model"
        )


def _adapted(spec: ExpertSpec, model: Any, adapter: str) -> Any:
    """Add a LoRA adapter to the weights: afterwards it costs nothing per token."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ModelSourceError(
            f"expert {spec.name!r}: options.adapter: needs peft; "
            "install 'expert-composer[lora]', or remove the option"
        ) from error
    source = str(find(adapter)) if is_local(adapter) else adapter
    return PeftModel.from_pretrained(model, source).merge_and_unload()


def _described(spec: ExpertSpec, model: Any, tokenizer: Any) -> LoadedModel:
    config = model.config.get_text_config()
    limits = (spec.context_window, getattr(config, "max_position_embeddings", None))
    ends = _ids(model.generation_config.eos_token_id) | _ids(tokenizer.eos_token_id)
    # The first call settles a tokenizer's padding and truncation; later ones may run in parallel.
    tokenizer.encode("")
    pad = tokenizer.pad_token_id
    pad_id = pad if pad is not None else min(ends, default=0)
    # Decoding is what the caller asked for, not what the model's authors liked best.
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False, eos_token_id=sorted(ends) or None, pad_token_id=pad_id
    )
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        window=min((limit for limit in limits if limit), default=None),
        end_ids=ends,
        pad_id=pad_id,
    )


def _ids(value: int | list[int] | None) -> frozenset[int]:
    if value is None:
        return frozenset()
    return frozenset([value] if isinstance(value, int) else value)


@contextmanager
def loading(spec: ExpertSpec) -> Iterator[None]:
    """Turn what the libraries raise about a model's files into our errors."""
    start = f"expert {spec.name!r}: {spec.model!r} cannot be loaded"
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise CapacityError(
            f"{start}: not enough memory; use a smaller model, options.dtype bfloat16, "
            "or another machine"
        ) from error
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ImportError,
        RuntimeError,
        SafetensorError,
        StrictDataclassError,
    ) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelSourceError(
            f"{start}: {type(error).__name__}: {reason}; check the model, or the hub name and "
            "the network"
        ) from error


@contextmanager
def computing(spec: ExpertSpec) -> Iterator[None]:
    """Run a model without gradients; turn what torch raises into our errors."""
    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError as error:
        raise CapacityError(
            f"expert {spec.name!r}: the GPU ran out of memory; send fewer or shorter texts at once "
            "(options.max_batch, options.batch_size), or use a larger or less shared GPU"
        ) from error
    except RuntimeError as error:
        raise ExpertUnavailableError(f"expert {spec.name!r}: the model failed: {error}") from error


def bounded(text: str, tokens: int | None) -> str:
    """Cut a text that is far too long before it is tokenised."""
    return text if tokens is None else text[: tokens * _CHARACTERS_PER_TOKEN]


def encodable(text: str) -> str:
    """Replace lone surrogates, which no tokenizer takes."""
    return text.encode(errors="replace").decode()
