"""Where a remote expert is asked, with which key, and how both are named in errors."""

import ipaddress
import os
import re
import socket
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from experts_registry.errors import RegistryError
from experts_registry.schema import ExpertSpec

__all__ = ["Endpoint"]

PUBLIC_URL = "https://api.openai.com/v1"
PUBLIC_KEY = "OPENAI_API_KEY"

# Where clouds hand out the credentials of the machine: no expert lives there.
_METADATA = ("metadata.google.internal", "metadata")
_DENIED = tuple(
    map(ipaddress.ip_network, ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254", "100.100.100.200"))
)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A checked address.

    Args:
        where: the start of every error message: expert and host, never the key.
        url: of the chat completions.
        key: sent as bearer token; empty for none.
        key_env: the environment variable that holds it, if any.
    """

    where: str
    url: str
    key: str = field(repr=False)
    key_env: str | None
    is_loopback: bool

    @classmethod
    def of(cls, spec: ExpertSpec, base_url: str, key_env: str | None) -> "Endpoint":
        """Check an expert's address and find its key.

        A key goes only where the file sends it: without ``api_key_env`` no server but OpenAI's
        own is shown one.

        Raises:
            RegistryError: the address is not allowed, or the key is missing.
        """
        name = f"expert {spec.name!r}"
        host = _allowed_host(f"{name}: options.base_url", base_url)
        parts = urlsplit(base_url)
        if key_env is None and base_url.rstrip("/") == PUBLIC_URL:
            key_env = PUBLIC_KEY
        return cls(
            where=f"{name} at {parts.netloc}",
            url=parts._replace(path=parts.path.rstrip("/") + "/chat/completions").geturl(),
            key=_key(name, key_env) if key_env else "",
            key_env=key_env,
            is_loopback=host == "localhost" or ((ip := _ip(host)) is not None and ip.is_loopback),
        )

    def quote(self, text: str, length: int = 80) -> str:
        """Return the start of what a server said, without the key that it may have echoed."""
        hidden = text.replace(self.key, "***") if self.key else text
        hidden = _KEY_LIKE.sub("***", hidden)  # a server may echo somebody else's
        short = " ".join(hidden.split())
        return short if len(short) <= length else short[: length - 3] + "..."


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


def _allowed_host(where: str, url: str) -> str:
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
    ip = _ip(host)
    if host in _METADATA or (ip is not None and any(ip in network for network in _DENIED)):
        raise RegistryError(
            f"{where}: {host!r} is a link-local or metadata address; use the server's own"
        )
    return host


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a host name spells out, also as 0xA9FEA9FE or ::ffff:a9fe:a9fe."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    return getattr(ip, "ipv4_mapped", None) or ip
