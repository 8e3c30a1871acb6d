"""Load the weights of a model once in a process, whoever asks for them, and change none of them.

What differs between experts of one base (an adapter, fewer layers) is another tree of modules
over the same tensors. So there is nothing to switch: threads use different experts at once, and
the base computes what it always did, bit by bit.
"""

import copy
import threading
from collections.abc import Callable, Hashable
from itertools import chain
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import torch

__all__ = ["lowest_layers", "same_weights", "shared"]

T = TypeVar("T")

_guard = threading.Lock()
_loading: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()  # a lock of each being loaded
_loaded: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()


def shared(key: Hashable, load: Callable[[], T]) -> T:
    """Return what was loaded under a key, or load it; it is freed when the last holder drops it."""
    with _guard:
        turn = _loading.setdefault(key, threading.Lock())
    with turn:
        with _guard:
            found: T | None = _loaded.get(key)
        if found is None:
            found = load()
            with _guard:
                _loaded[key] = found
        return found


def same_weights(model: torch.nn.Module) -> Any:
    """Return a copy of the modules alone: its parameters and buffers are those of the model."""
    memo = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, memo)


def lowest_layers(model: torch.nn.Module, n: int) -> Any:
    """Return a model of the lowest ``n`` transformer layers, of the same weights.

    Raises:
        ValueError: the layers cannot be found, or are fewer.
    """
    name, layers = _layers(model)
    if n > len(layers):
        raise ValueError(f"the model has {len(layers)} layers, so use 0 to {len(layers)}")
    lower = same_weights(model)
    lower.set_submodule(name, lower.get_submodule(name)[:n])
    return lower


def _layers(model: torch.nn.Module) -> tuple[str, torch.nn.ModuleList]:
    """Return the one list of as many modules as the model says that it has layers."""
    count = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == count
    ]
    outer = [
        (name, module)
        for name, module in lists
        if not any(name.startswith(f"{other}.") for other, _ in lists)
    ]
    if len(outer) != 1:
        raise ValueError(
            f"its layers cannot be found in a {type(model).__name__}, so remove the option"
        )
    return outer[0]
