"""API keys: who may ask, for which models, how much.

A token is ``ec-``, a public id of ten hex digits, ``-`` and 32 random bytes. It is shown once and
kept only as its SHA-256 digest. That needs neither salt nor a slow hash: nobody can try 2**256
random secrets, as one can try the passwords that people choose; and a server-side HMAC key would
only be one more secret to keep. The digest covers the id, so a secret opens its own key alone.
"""

import hmac
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from secrets import token_hex, token_urlsafe

from composer.periods import Period
from experts_registry.errors import ForbiddenError, OptionError

__all__ = ["Key", "NewKey", "digest", "is_same", "is_token", "key_id", "new_token"]

_TOKEN = re.compile(r"ec-([0-9a-f]{10})-([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, kw_only=True)
class Key:
    """An API key without its secret.

    Args:
        id: public; logs and the command line name the key by it.
        name: for people.
        models: what may be asked for, by the names a client sends; empty allows every one. A
            composition brings its experts with it: they need not be listed.
        stores: what passages may come from; empty allows every store. Others are passed over, as
            if their passages did not exist.
        rpm: requests a minute, for each server process.
        tpm: tokens a minute, for each server process.
        usd: budget of each period, over all processes.
        per: the period: UTC days, UTC months, or for ever.
        expires: the first moment at which it no longer works.
        is_admin: may use the admin verbs.
        created: when it was made.
        revoked: when it was revoked.
    """

    id: str
    name: str
    models: tuple[str, ...] = ()
    stores: tuple[str, ...] = ()
    rpm: int | None = None
    tpm: int | None = None
    usd: float | None = None
    per: Period = "total"
    expires: datetime | None = None
    is_admin: bool = False
    created: datetime
    revoked: datetime | None = None

    def __post_init__(self) -> None:
        if not self.name.strip() or len(self.name) > 255:
            raise OptionError("name: is empty or longer than 255 characters; say whose key it is")
        if is_token(self.name):
            raise OptionError("name: is an API key itself; say whose key it is")
        for what, limit in (("rpm", self.rpm), ("tpm", self.tpm)):
            if limit is not None and limit < 1:
                raise OptionError(f"{what}: {limit} is below 1; use 1 or more, or leave it out")
        if self.usd is not None and not 0 <= self.usd <= 1e9:
            raise OptionError(f"usd: {self.usd!r} is not a budget; use 0 to 1e9, or leave it out")
        if self.per not in ("day", "month", "total"):
            raise OptionError(f"per: {self.per!r} is not one of day, month, total")

    def state(self, now: datetime | None = None) -> str:
        """Return ``active``, ``expired`` or ``revoked``."""
        if self.revoked is not None:
            return "revoked"
        is_over = self.expires is not None and self.expires <= (now or datetime.now(UTC))
        return "expired" if is_over else "active"

    def allows(self, model: str) -> bool:
        """Tell whether the key may ask for a model."""
        return not self.models or model in self.models

    @property
    def readable(self) -> frozenset[str] | None:
        """The stores that passages may come from; None are all."""
        return frozenset(self.stores) or None

    def require_store(self, store: str) -> None:
        """Let a search of a store pass.

        Raises:
            ForbiddenError: it is not among the key's stores.
        """
        if self.stores and store not in self.stores:
            raise ForbiddenError(
                f"API key: may not read store {store[:100]!r}; it may read {', '.join(self.stores)}"
            )

    def require_model(self, model: str) -> None:
        """Let a model pass.

        Raises:
            ForbiddenError: it is not among the key's models.
        """
        if not self.allows(model):
            raise ForbiddenError(
                f"API key: may not ask for model {model[:100]!r}; it may ask for "
                f"{', '.join(self.models)}"
            )

    def require_admin(self) -> None:
        """Let an admin verb pass.

        Raises:
            ForbiddenError: the key is not an admin's.
        """
        if not self.is_admin:
            raise ForbiddenError("API key: is not an admin's; use one made with --admin")


@dataclass(frozen=True)
class NewKey:
    """A key that was just made, and its token: the only time that anybody sees it."""

    key: Key
    token: str = field(repr=False)


def new_token() -> str:
    """Draw a token."""
    return f"ec-{token_hex(5)}-{token_urlsafe(32)}"


def is_token(text: str) -> bool:
    """Tell whether a text contains what looks like a token, so that nobody repeats it."""
    return _TOKEN.search(text) is not None


def key_id(token: str) -> str | None:
    """Return the public id in a token; None where the text is none."""
    match = _TOKEN.fullmatch(token)
    return match[1] if match else None


def digest(token: str) -> str:
    """Return what is stored of a token."""
    return sha256(token.encode()).hexdigest()


def is_same(one: str, other: str) -> bool:
    """Compare two digests in constant time."""
    return hmac.compare_digest(one, other)
