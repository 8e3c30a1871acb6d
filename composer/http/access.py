"""Whom the door lets in: from the first key on, those who have one."""

import asyncio
import time
from dataclasses import dataclass

from starlette.types import Scope

from composer.admission import Admission
from composer.decision_log import DecisionLog
from composer.key_store import KeyStore
from composer.keys import Key, is_token
from composer.locations import database_location
from experts_registry.registry import Registry

__all__ = ["Access"]

_LOOK_SECONDS = 5.0  # between looks whether there are keys by now


@dataclass
class Access:
    """Keys, limits and log of one server; from the first key on everybody needs one.

    Args:
        keys: who may ask.
        admission: how much.
        log: what was decided.
    """

    keys: KeyStore
    admission: Admission
    log: DecisionLog
    _is_needed: bool = False
    _looked: float = float("-inf")

    @classmethod
    def of(cls, registry: Registry) -> "Access":
        """Open the databases that an expert file names."""
        where = database_location(registry, "keys")
        log = DecisionLog(database_location(registry, "decisions"))
        return cls(KeyStore(where), Admission(where), log)

    async def enter(self, scope: Scope) -> Key | None:
        """Return whose key a request carries; None where no key is needed.

        Raises:
            KeyRefusedError: a key is needed, and this is none that works.
        """
        token = _bearer(scope)
        if await self.is_needed() or is_token(token):
            return await self.keys.aauthenticate(token)
        return None

    async def is_needed(self) -> bool:
        """Tell whether there are keys; once there were, only a new server forgets it."""
        now = time.monotonic()
        if not self._is_needed and now - self._looked > _LOOK_SECONDS:
            # Also revoked ones: who ends the only key does not mean to let everybody in.
            self._is_needed = bool(await asyncio.to_thread(self.keys.all))
            self._looked = now
        return self._is_needed

    def close(self) -> None:
        """Write what waits, and close the databases."""
        self.log.close()
        self.admission.close()
        self.keys.close()


def _bearer(scope: Scope) -> str:
    """Return the token of ``Authorization: Bearer``; an empty text where there is none."""
    sent = [value for name, value in scope["headers"] if name == b"authorization"]
    # Of several, a proxy before us may have believed another one.
    value = sent[0].decode("latin-1") if len(sent) == 1 else ""
    kind, _, token = value.partition(" ")
    return token.strip() if kind.casefold() == "bearer" else ""
