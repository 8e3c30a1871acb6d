"""Whose fault a failed call is: what decides whether another expert can help."""

from experts_registry.errors import (
    CapacityError,
    ComposerError,
    ExpertBusyError,
    ExpertReplyError,
    ExpertRequestError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    ModelSourceError,
    PluginError,
    RegistryError,
)

__all__ = ["is_experts_fault"]

_THEIRS = (
    CapacityError,
    ExpertBusyError,
    ExpertReplyError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    ModelSourceError,
    PluginError,
    RegistryError,
)


def is_experts_fault(error: ComposerError) -> bool:
    """Tell whether the expert failed, or how it is set up, and not the request."""
    if isinstance(error, ExpertRequestError):
        return not error.is_callers_fault
    return isinstance(error, _THEIRS)
