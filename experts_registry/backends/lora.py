"""Run a LoRA adapter in PEFT's format beside the weights of a base that stays as it is.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022,
https://arxiv.org/abs/2106.09685: an adapted layer computes W x + s B A x of low rank r, with
s = alpha / r (alpha / sqrt(r) after Kalajdzievski, https://arxiv.org/abs/2312.03732).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from experts_registry.backends.shared_weights import same_weights
from experts_registry.errors import ArtefactError, ModelSourceError, RegistryError
from experts_registry.schema import ExpertSpec
from experts_registry.sources import file_digest, find, is_local

__all__ = ["LoraAdapter"]

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Settings that change what an adapted layer computes, or the base that it was trained on.
_VARIANTS = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "alora_invocation_tokens",
    "arrow_config", "kasa_config", "monteclora_config", "velora_config", "layer_replication",
    "target_parameters", "trainable_token_indices", "modules_to_save",
)  # fmt: skip
_PLAIN_STARTS = (None, True, False, "gaussian", "orthogonal", "eva")  # leave the base alone


@dataclass(frozen=True)
class LoraAdapter:
    """An adapter on disk; its weights are read by `on`.

    Args:
        where: starts its errors: the expert, the option and the folder.
        folder: holds ``adapter_config.json`` and ``adapter_model.safetensors``.
        config: what the former says.
    """

    where: str
    folder: Path
    config: Mapping[str, Any]

    @classmethod
    def find(cls, spec: ExpertSpec, source: str) -> "LoraAdapter":
        """Find an adapter and read what it is.

        Raises:
            RegistryError: the source is no local folder.
            ModelSourceError: it is not there.
            ArtefactError: it is no LoRA adapter, or of a variant that is not run here.
        """
        where = f"expert {spec.name!r}: options.adapter"
        if not is_local(source):
            raise RegistryError(f"{where}: {source!r} is no local folder; write path:<folder>")
        try:
            folder = find(source)
        except ModelSourceError as error:
            raise ModelSourceError(f"{where}: {error}") from None
        adapter = cls(f"{where}: {folder}", folder, _read(f"{where}: {folder}", folder))
        adapter._require_plain_lora()
        return adapter

    @property
    def digest(self) -> str:
        """Identify what it changes."""
        return file_digest([self.folder / _CONFIG, self.folder / _WEIGHTS])

    def on(self, model: torch.nn.Module, base: str) -> Any:
        """Return a model of the same weights with the adapter beside them.

        Args:
            model: stays as it is.
            base: its folder, or its name on the hub.

        Raises:
            ArtefactError: the adapter was made for another one, or is damaged.
        """
        self._require_base(base)
        adapted = same_weights(model)
        for name, (a, b) in self._matrices().items():
            parent, _, leaf = name.rpartition(".")
            try:
                linear = adapted.get_submodule(name)
            except AttributeError:
                linear = None
            if not isinstance(linear, torch.nn.Linear):
                raise self._other_base(f"it has no linear layer {name}")
            if (a.shape[1], b.shape[0]) != (linear.in_features, linear.out_features):
                raise self._other_base(
                    f"{name} maps {linear.in_features} to {linear.out_features} there, and "
                    f"{a.shape[1]} to {b.shape[0]} here"
                )
            low_rank = _LowRank(linear, a, b * self._scale(name, len(a)))
            setattr(adapted.get_submodule(parent), leaf, low_rank)
        return adapted

    def _require_plain_lora(self) -> None:
        kind = self.config.get("peft_type")
        if kind != "LORA":
            raise ArtefactError(f"{self.where}: is of PEFT type {kind!r}; only LORA is run here")
        start = self.config.get("init_lora_weights")
        used = [key for key in _VARIANTS if self.config.get(key)]
        used += ["bias"] if self.config.get("bias", "none") != "none" else []
        used += [] if start in _PLAIN_STARTS else ["init_lora_weights"]
        if used:
            raise ArtefactError(
                f"{self.where}: is LoRA with {', '.join(used)}, which is not run here; train "
                "plain LoRA"
            )
        if not (self.folder / _WEIGHTS).is_file():
            raise ArtefactError(f"{self.where}: has no {_WEIGHTS}; save it with save_pretrained")

    def _require_base(self, base: str) -> None:
        """Compare the base that it names with ours, as far as this machine knows both."""
        named = self.config.get("base_model_name_or_path")
        if not isinstance(named, str) or named == base:
            return
        if not is_local(named) and not Path(named).is_absolute():
            if not Path(base).exists() and _last(named) != _last(base):
                raise self._other_base(f"it was trained on {named}")
            return
        try:
            theirs = find(named if is_local(named) else f"path:{named}")
        except ModelSourceError:  # it was trained elsewhere: shapes must do
            return
        if (mine := _weights(Path(base))) and (other := _weights(theirs)) and mine != other:
            raise self._other_base(f"it was trained on {theirs}, which holds other weights")

    def _other_base(self, what: str) -> ArtefactError:
        return ArtefactError(
            f"{self.where}: does not fit the model, {what}; name the model that it was trained on"
        )

    def _matrices(self) -> Mapping[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return A (r, in) and B (out, r) of each adapted module."""
        try:
            tensors = load_file(self.folder / _WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise ArtefactError(f"{self.where}: cannot be read: {error}; save it again") from error
        down, up = (self._named(tensors, side) for side in ("A", "B"))
        if not down or down.keys() != up.keys() or len(down) + len(up) != len(tensors):
            ends = "lora_A.weight and lora_B.weight"
            known = {f"{_PREFIX}{name}.lora_{side}.weight" for name in down for side in "AB"}
            odd = sorted(tensors.keys() ^ known)[:1] or ["nothing"]
            raise ArtefactError(
                f"{self.where}: holds {odd[0]}, where pairs of {ends} belong; train plain LoRA"
            )
        pairs = {name: (down[name], up[name]) for name in down}
        for name, (a, b) in pairs.items():
            if a.ndim != 2 or b.ndim != 2 or len(a) != b.shape[1]:
                raise ArtefactError(f"{self.where}: the matrices of {name} do not fit each other")
        return pairs

    def _named(self, tensors: Mapping[str, torch.Tensor], side: str) -> dict[str, torch.Tensor]:
        end = f".lora_{side}.weight"
        return {
            name.removeprefix(_PREFIX).removesuffix(end): tensor
            for name, tensor in tensors.items()
            if name.startswith(_PREFIX) and name.endswith(end)
        }

    def _scale(self, name: str, rank: int) -> float:
        alpha = self.config.get("lora_alpha", 8)
        patterns: Mapping[str, float] = self.config.get("alpha_pattern") or {}
        found = (p for p in patterns if re.match(rf"(.*\.)?({p})$", name))
        alpha = patterns.get(next(found, ""), alpha)
        return float(alpha / (rank**0.5 if self.config.get("use_rslora") else rank))


class _LowRank(torch.nn.Linear):
    """A linear layer of another's weights, and what an adapter adds to it.

    Two small products cost a few percent of the layer's own. Merging them into its weights would
    cost a copy of these for each adapter, or more time at each change of adapter.
    """

    down: torch.Tensor
    up: torch.Tensor

    def __init__(self, linear: torch.nn.Linear, a: torch.Tensor, b: torch.Tensor) -> None:
        torch.nn.Module.__init__(self)  # not Linear's, which makes weights
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.register_buffer("down", a.T.to(linear.weight).contiguous())  # (in, r)
        self.register_buffer("up", b.T.to(linear.weight).contiguous())  # (r, out)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        y = super().forward(input)
        low = input.reshape(-1, self.in_features) @ self.down
        y.view(-1, self.out_features).addmm_(low, self.up)
        return y


def _read(where: str, folder: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(
            f"{where}: is no LoRA adapter, {_CONFIG} cannot be read: {error}; name the folder that "
            "PEFT saved"
        ) from error
    if not isinstance(config, dict):
        raise ArtefactError(f"{where}: is no LoRA adapter, {_CONFIG} is not a mapping")
    return config


def _last(name: str) -> str:
    return name.rpartition("/")[2].casefold()


def _weights(folder: Path) -> str | None:
    """Identify the weights of a model's folder, if it holds any in this format."""
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return file_digest(files) if files else None
