"""What every backend checks of its expert: the options, and what callers may ask of it."""

from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from experts_registry.errors import ExpertUnavailableError, OffersError, RegistryError, nearest
from experts_registry.schema import ExpertSpec

__all__ = ["check_offers", "closed", "parse_options", "refuse"]

O = TypeVar("O", bound=BaseModel)  # noqa: E741


def parse_options(model: type[O], spec: ExpertSpec) -> O:
    """Validate ``options:`` of an expert.

    Raises:
        RegistryError: a key is unknown or a value wrong; one line per mistake.
    """
    try:
        return model.model_validate(spec.options)
    except ValidationError as error:
        lines = [
            f"expert {spec.name!r}: {'.'.join(map(str, ('options', *detail['loc'])))}: "
            f"{detail['msg']}{_hint(detail['type'], detail['loc'], model)}"
            for detail in error.errors(include_url=False, include_input=False)
        ]
    raise RegistryError("\n".join(lines))


def _hint(kind: str, where: tuple[Any, ...], model: type[BaseModel]) -> str:
    if kind != "extra_forbidden":
        return ""
    return nearest(str(where[-1]), model.model_fields) or (
        f"; use one of {', '.join(model.model_fields)}"
    )


def check_offers(spec: ExpertSpec, offers: tuple[str, ...]) -> frozenset[str]:
    """Return what callers may ask of an expert, given what its backend can do.

    Raises:
        RegistryError: the file promises more than the backend can do.
    """
    if more := sorted(set(spec.offers) - set(offers)):
        raise RegistryError(
            f"expert {spec.name!r}: offers: backend {spec.backend!r} has no {', '.join(more)}; "
            f"use {', '.join(offers)}"
        )
    return frozenset(spec.offers or offers)


def refuse(
    spec: ExpertSpec, what: str, offers: Iterable[str], *, param: str | None = None
) -> OffersError:
    """Build the error for a call that asks more than an expert offers.

    Args:
        spec: of the expert.
        what: it does not offer.
        offers: what it does.
        param: the request's key; by default ``what`` itself.
    """
    what = what if len(what) <= 128 else f"{what[:128]}..."
    return OffersError(
        f"expert {spec.name!r}: does not offer {what}, only {', '.join(sorted(offers))}; "
        "ask another expert, or leave it out of the request",
        param or what,
    )


def closed(spec: ExpertSpec) -> ExpertUnavailableError:
    """Build the error for a call to an expert that has been closed."""
    return ExpertUnavailableError(f"expert {spec.name!r}: has been closed; make a new one")
