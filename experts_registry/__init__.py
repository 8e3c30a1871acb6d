"""Which experts there are, and how each is run."""

from typing import TYPE_CHECKING

from experts_registry.lazy import lazy_attributes

if TYPE_CHECKING:
    from experts_registry.errors import ComposerError, RegistryError
    from experts_registry.passages import Passage
    from experts_registry.registry import Registry
    from experts_registry.schema import Composition, ExpertSpec
    from experts_registry.types import LLM, Embedder, Generation, Message, Prompt, Usage

__all__ = [
    "LLM",
    "ComposerError",
    "Composition",
    "Embedder",
    "ExpertSpec",
    "Generation",
    "Message",
    "Passage",
    "Prompt",
    "Registry",
    "RegistryError",
    "Usage",
]

_TYPES = ("LLM", "Embedder", "Generation", "Message", "Prompt", "Usage")
_HOMES = {
    "ComposerError": "experts_registry.errors",
    "Composition": "experts_registry.schema",
    "ExpertSpec": "experts_registry.schema",
    "Passage": "experts_registry.passages",
    "Registry": "experts_registry.registry",
    "RegistryError": "experts_registry.errors",
    **dict.fromkeys(_TYPES, "experts_registry.types"),
}
__getattr__ = lazy_attributes(__name__, _HOMES)
