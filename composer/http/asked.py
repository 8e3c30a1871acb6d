"""What an endpoint is given: one request, and the composer that answers it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp

from composer.http.visit import Visit
from composer.sdk import Composer

__all__ = ["Asked", "Endpoint"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request.

    Args:
        composer: the edition that answers it, whatever is edited meanwhile.
        body: its JSON object; empty for GET.
        path: the variable parts of its address.
        visit: whose request it is, and what it comes to.
        began: when it was read, in `time.perf_counter` seconds.
    """

    composer: Composer
    body: Mapping[str, Any]
    path: Mapping[str, str]
    visit: Visit
    began: float


Endpoint = Callable[[Asked], Awaitable[ASGIApp]]
