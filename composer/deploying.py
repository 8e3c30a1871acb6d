"""Serve an expert file on Ray Serve: several ingress replicas behind one address."""

import logging
import math
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml

from composer.http.origin import is_loopback
from composer.http.server import listening, require_keys, shown
from composer.ray_environment import end_proxies, proxy_binary, serve_environment
from experts_registry.errors import CapacityError, OptionError
from experts_registry.registry import Registry

__all__ = ["Plan", "config_text", "deploy", "environment", "serve_config"]

logger = logging.getLogger(__name__)

APP = "expert-composer"
DRAIN_SECONDS = 30.0
OBJECT_STORE_BYTES = 256 * 2**20  # requests do not pass through it
LONGEST_FOLDER = 26  # of a socket's 97 characters; Ray Serve puts its own between
PROXY_SECONDS = 30.0  # that a proxy may take to hear of the replicas
REQUESTS = 1000  # that a replica answers at once; experts have bounds of their own


_LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # where a server on every interface is asked


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to deploy.

    Args:
        registry: the expert file.
        host: the address to listen on; beyond loopback somebody must hold a key.
        port: of it.
        replicas: ingress replicas, at least and at most; Serve moves between the two by load.
        load: requests in flight in each replica that Serve aims at.
        workers: run experts on Ray workers instead of in the replicas.
    """

    registry: Path
    host: str = "127.0.0.1"
    port: int = 8000
    replicas: tuple[int, int] = (2, 2)
    load: int = 16
    workers: bool = False

    def __post_init__(self) -> None:
        least, most = self.replicas
        if least > most:
            raise OptionError(f"--min-replicas: {least} is above --max-replicas {most}")

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `composer.ray_door.build`."""
        return {
            "registry": str(self.registry.absolute()),
            "workers": self.workers,
            "keyless": is_loopback(self.host),
        }

    def options(self) -> dict[str, Any]:
        """Return Serve's options of the ingress deployment."""
        least, most = self.replicas
        scale: dict[str, Any] = {"num_replicas": most}
        if least < most:
            aims = {"target_ongoing_requests": self.load, "upscale_delay_s": 5.0}
            bounds = {"min_replicas": least, "max_replicas": most}
            scale = {"autoscaling_config": bounds | aims | {"downscale_delay_s": 60.0}}
        return scale | {
            "max_ongoing_requests": REQUESTS,
            "graceful_shutdown_timeout_s": DRAIN_SECONDS,
            "health_check_period_s": 5.0,
            "max_surge_percent": 100.0,  # a new replica comes before the old one goes
            "ray_actor_options": {"num_cpus": 1.0},
        }

    def address(self) -> dict[str, Any]:
        """Return Serve's ``http_options``."""
        return {"host": self.host, "port": self.port}


def serve_config(plan: Plan) -> dict[str, Any]:
    """Return what ``serve run`` and ``serve deploy`` accept as a config file."""
    door = {"name": "door", **plan.options(), "user_config": {}}
    application = {
        "name": APP,
        "route_prefix": "/",
        "import_path": "composer.ray_door:build",
        "args": plan.arguments(),
        "deployments": [door],
    }
    return {
        "proxy_location": "HeadOnly" if is_loopback(plan.host) else "EveryNode",
        "http_options": plan.address(),
        "applications": [application],
    }


def config_text(plan: Plan) -> str:
    """Return `serve_config` as YAML."""
    return yaml.safe_dump(serve_config(plan), sort_keys=False).rstrip()


def environment(folder: Path, *, is_fast: bool) -> Mapping[str, str]:
    """Make a private folder, and return the variables of `serve_environment` for ``ray start``.

    Raises:
        OptionError: its path is too long.
    """
    folder = folder.absolute()
    if len(str(folder)) > LONGEST_FOLDER:
        raise OptionError(
            f"--environment: {folder} has {len(str(folder))} characters; sockets go into it, whose "
            f"paths must be short: use at most {LONGEST_FOLDER}, such as /tmp/ec"
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return serve_environment(folder, is_fast=is_fast)


def deploy(plan: Plan, *, is_fast: bool, is_blocking: bool, ready: Callable[[str], None]) -> None:
    """Deploy, on the cluster at ``RAY_ADDRESS`` or on one of this machine that lives with us.

    Args:
        plan: what.
        is_fast: with the switches of `serve_environment`; a cluster at ``RAY_ADDRESS`` has its own.
        is_blocking: serve until SIGTERM or Ctrl-C, then let requests in flight finish and take the
            application down. Without it only a cluster at ``RAY_ADDRESS`` serves on.
        ready: is told the address once clients can connect.

    Raises:
        RegistryError: the file is wrong.
        OptionError: others could reach the address and there are no keys; or nothing would serve.
        CapacityError: Ray does not start, or has no room.
    """
    registry = Registry.load(plan.registry)
    if not is_loopback(plan.host):
        require_keys(plan.registry, f"--host: {plan.host!r} could be reached from other machines")
    is_ours = "RAY_ADDRESS" not in os.environ
    if is_ours and not is_blocking:
        raise OptionError(
            "--no-blocking: the cluster of this machine would end with this command; name one that "
            "runs in RAY_ADDRESS, or leave the option out"
        )
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as folder:
        if is_ours:
            listening(plan.host, plan.port).close()  # HAProxy would try in silence
            os.environ.update(serve_environment(Path(folder), is_fast=is_fast))
            if is_fast and proxy_binary() is None:
                logger.warning("HAProxy is not installed: Ray Serve's own proxy stands in front")
        try:
            _run(plan, registry, is_ours, is_blocking, ready)
        finally:
            end_proxies(Path(folder))


def _run(
    plan: Plan, registry: Registry, is_ours: bool, is_blocking: bool, ready: Callable[[str], None]
) -> None:
    import ray
    from ray import serve

    from composer.ray_door import Arguments, application

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    _connect(_cpus(plan, registry) if is_ours else None)
    try:
        is_over = _signalled()
        where = serve_config(plan)
        door = application(Arguments.model_validate(plan.arguments()), **plan.options())
        try:
            serve.start(proxy_location=where["proxy_location"], http_options=where["http_options"])
            serve.run(door, name=APP, route_prefix="/")
        except RuntimeError as error:
            raise CapacityError(f"deploy: {' '.join(str(error).split())[:500]}") from error
        _require_answers(plan)
        ready(shown(plan.host, plan.port))
        if is_blocking:
            is_over.wait()
            serve.delete(APP)  # which waits for the requests in flight
            if is_ours:
                serve.shutdown()
    finally:
        ray.shutdown()


def _require_answers(plan: Plan) -> None:
    """Wait until the proxy passes requests on.

    Raises:
        OptionError: it does not, as a Serve that ran before listens elsewhere.
    """
    url = shown(_LOCAL.get(plan.host, plan.host), plan.port) + "/health"
    end = time.monotonic() + PROXY_SECONDS
    while True:
        try:
            with urlopen(url, timeout=5):
                return
        except OSError as error:
            if time.monotonic() > end:
                raise OptionError(
                    f"--port: the replicas run, but {url} does not answer ({error}); a Serve that "
                    "ran on that cluster before keeps its own address: name that one"
                ) from error
        time.sleep(0.1)


def _connect(cpus: int | None) -> None:
    """Start a cluster with so many CPUs, or join the one at ``RAY_ADDRESS``."""
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if cpus is not None:
        quiet |= {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        quiet["object_store_memory"] = OBJECT_STORE_BYTES
    try:
        ray.init(**quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise CapacityError(
            f"deploy: Ray does not start: {' '.join(str(error).split())[:300]}; mend or unset "
            "RAY_ADDRESS"
        ) from error


def _cpus(plan: Plan, registry: Registry) -> int:
    """Return the CPUs that the cluster of one machine must claim: what runs there shares them."""
    experts = [spec.resources for spec in registry.llms.values()] if plan.workers else []
    needed = plan.replicas[1] * (1 + sum(e.cpus * e.replicas for e in experts))
    return max(os.cpu_count() or 1, math.ceil(needed))


def _signalled() -> threading.Event:
    """Return what SIGTERM and Ctrl-C set from now on; after `ray.init`, which has its own way."""
    is_over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: is_over.set())
    return is_over
