"""Where a remote expert is asked, with which key, and how both are named in errors."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from experts_registry.backends.addresses import ip_of, is_denied
from experts_registry.backends.redaction import without
from experts_registry.errors import ComposerError, RegistryError
from experts_registry.schema import ExpertSpec
from experts_registry.types import Prompt

__all__ = ["Endpoint"]

PUBLIC_URL = "https://api.openai.com/v1"
PUBLIC_KEY = "OPENAI_API_KEY"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A checked address.

    Args:
        name: of the expert, for clients, who need not know its host.
        where: the start of every error message: expert and host, never the key.
        host: the name in it.
        url: of the chat completions.
        key: sent as bearer token; empty for none.
        key_env: the environment variable that holds it, if any.
        asked: texts of the prompt at hand, which no error repeats.
    """

    name: str
    where: str
    host: str
    url: str
    key: str = field(repr=False)
    key_env: str | None
    is_loopback: bool
    asked: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(
        cls, spec: ExpertSpec, base_url: str, key_env: str | None, *, allow_link_local: bool = False
    ) -> "Endpoint":
        """Check an expert's address and find its key.

        A key goes only where the file sends it: without ``api_key_env`` no server but OpenAI's
        own is shown one.

        Raises:
            RegistryError: the address is not allowed, or the key is missing.
        """
        name = f"expert {spec.name!r}"
        host = _host(f"{name}: options.base_url", base_url)
        if is_denied(host) and not allow_link_local:
            raise RegistryError(
                f"{name}: options.base_url: {host!r} is a link-local or metadata address; use the "
                "server's own, or set options.allow_link_local"
            )
        parts = urlsplit(base_url)
        if key_env is None and base_url.rstrip("/") == PUBLIC_URL:
            key_env = PUBLIC_KEY
        return cls(
            name=name,
            where=f"{name} at {parts.netloc}",
            host=host,
            url=parts._replace(path=parts.path.rstrip("/") + "/chat/completions").geturl(),
            key=_key(name, key_env) if key_env else "",
            key_env=key_env,
            is_loopback=host == "localhost" or ((ip := ip_of(host)) is not None and ip.is_loopback),
        )

    def asking(self, prompt: Prompt) -> "Endpoint":
        """Return the same for one prompt."""
        return replace(self, asked=tuple(m.content for m in prompt.messages))

    @contextmanager
    def kept_from_clients(self) -> Iterator[None]:
        """Say in ``public`` of every error what it says, without the host."""
        try:
            yield
        except ComposerError as error:
            error.public = (error.public or str(error)).replace(self.where, self.name)
            raise

    def quote(self, text: str, length: int = 80) -> str:
        """Return the start of what a server said, without key and prompt if it echoes them."""
        hidden = text.replace(self.key, "***") if self.key else text
        hidden = _KEY_LIKE.sub("***", hidden)  # a server may echo somebody else's
        short = " ".join(hidden[:_QUOTED].split())
        short = without(short, self.asked)
        return short if len(short) <= length else short[: length - 3] + "..."


_QUOTED = 2_000  # characters that are looked at: more are never shown
_KEY_LIKE = re.compile(r"\b(?:sk|pk|rk)-[\w-]{6,}|\bhf_\w{8,}|(?<=Bearer )\S+")


def _key(name: str, variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise RegistryError(
            f"{name}: options.api_key_env: environment variable {variable!r} is not set; "
            "set it to the server's API key"
        )
    if not (key.isascii() and key.isprintable()):
        raise RegistryError(
            f"{name}: options.api_key_env: environment variable {variable!r} holds characters "
            "that no HTTP header may; set it to the bare API key"
        )
    return key


def _host(where: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").rstrip("."), parts.port
    except ValueError as error:
        raise RegistryError(f"{where}: {url!r} is not a URL ({error})") from None
    if parts.scheme not in ("http", "https") or not host:
        raise RegistryError(f"{where}: {url!r} is not http:// or https:// with a host")
    if parts.username is not None or parts.password is not None:
        raise RegistryError(
            f"{where}: holds a user or password; name an environment variable in api_key_env"
        )
    return host
