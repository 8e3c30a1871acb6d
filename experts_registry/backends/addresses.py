"""Addresses where no expert lives: link-local ones, where clouds hand out a machine's credentials.

Loopback and private networks, which is where most experts live, are allowed.
"""

import asyncio
import ipaddress
import logging
import math
import socket
import time
from dataclasses import dataclass, field

from experts_registry.errors import ExpertUnavailableError

__all__ = ["ResolvedHost", "ip_of", "is_denied"]

logger = logging.getLogger(__name__)

IP = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAMES = ("metadata.google.internal", "metadata", "instance-data", "instance-data.ec2.internal")
_NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        (
            "169.254.0.0/16",
            "fe80::/10",
            "fd00:ec2::/32",  # AWS
            "fd20:ce::254",  # Google
            "100.100.100.200",  # Alibaba
            "168.63.129.16",  # Azure
            "192.0.0.192",  # Oracle
        ),
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_FRESH_SECONDS = 30.0


def is_denied(host: str) -> bool:
    """Tell whether a host name is, or spells out, an address where no expert lives."""
    ip = ip_of(host)
    return host in _NAMES or (ip is not None and any(ip in network for network in _NETWORKS))


def ip_of(host: str) -> IP | None:
    """Return the address that a host name spells out, also as 0xA9FEA9FE or ::ffff:a9fe:a9fe."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    return _within(ip) if isinstance(ip, ipaddress.IPv6Address) else ip


def _within(ip: ipaddress.IPv6Address) -> IP:
    """Return the IPv4 address that one of IPv6 leads to, if it does."""
    if ip in _NAT64 or (int(ip) >> 32 == 0 and int(ip) > 1):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


@dataclass
class ResolvedHost:
    """A host name, looked up anew every half minute: what it points to may change.

    A name that changes between this look and the connection gets through: use IP addresses, or
    names of your own, where that matters.

    Args:
        where: begins the error.
        host: what to look up.
    """

    where: str
    host: str
    _until: float = field(default=0.0)

    async def require_allowed(self) -> None:
        """Check what the name points to now.

        Raises:
            ExpertUnavailableError: one of its addresses is one where no expert lives.
        """
        now = time.monotonic()
        if now < self._until:
            return
        if ip_of(self.host) is not None:
            self._until = math.inf
            return
        if self._until > 0:  # it was fine: others need not wait for this look
            self._until = now + 1.0
        try:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(self.host, None, type=socket.SOCK_STREAM)
        except OSError:  # connecting tells it better, or a proxy knows the name
            return
        if denied := [str(address[4][0]) for address in found if is_denied(str(address[4][0]))]:
            self._until = 0.0
            error = ExpertUnavailableError(
                f"{self.where}: {self.host!r} points to {denied[0]}, a link-local or metadata "
                "address; use the server's own, or options.allow_link_local"
            )
            logger.error("%s", error)  # clients need not know where it points to
            error.public = f"{self.where}: may not be asked; the operator has to check its address"
            raise error
        self._until = now + _FRESH_SECONDS
