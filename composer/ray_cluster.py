"""The Ray cluster that workers run on: join it, or start one here and share it in this process."""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import ray
from ray.exceptions import RayError

from experts_registry.errors import CapacityError
from experts_registry.schema import ExpertSpec

__all__ = ["is_alone", "join", "leave"]

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 256 * 2**20  # answers are small; weights are mapped from files
FREE_SECONDS = 5.0  # how long workers that were just stopped take to give back what they reserved

_Unit = tuple[str, str, str, int]  # Ray's name, ours, the field of `Resources`, how much is one
_UNITS: tuple[_Unit, ...] = (
    ("GPU", "GPUs", "gpus", 1),
    ("memory", "GiB of memory", "memory_gb", 2**30),
)
# Of a cluster of several machines only: on this one alone, experts share the cores.
_CPUS: _Unit = ("CPU", "CPUs", "cpus", 1)

_lock = threading.Lock()
_sharing = 0  # users of the cluster that was started or joined here
_is_alone = False


def join(experts: Mapping[str, ExpertSpec]) -> bool:
    """Connect to Ray and make sure that it can host the experts.

    An initialised Ray is used as it is; else the cluster that ``RAY_ADDRESS`` names; else one is
    started on this machine.

    Returns:
        Whether the caller must `leave`, because the cluster ends with its last user here.

    Raises:
        CapacityError: Ray does not start, or cannot host the experts.
    """
    global _sharing
    with _lock:
        is_ours = _sharing > 0
        if not ray.is_initialized():
            try:
                _in_a_lasting_thread(_start)
            except (ConnectionError, OSError, RuntimeError, ValueError, RayError) as error:
                raise CapacityError(
                    f"workers: Ray does not start: {' '.join(str(error).split())[:300]}; mend or "
                    "unset RAY_ADDRESS, or run without workers"
                ) from error
            is_ours = True
        _sharing += is_ours
    try:
        _require_capacity(experts, _UNITS if is_alone() else (*_UNITS, _CPUS))
    except CapacityError:
        if is_ours:
            leave()
        raise
    return is_ours


def leave() -> None:
    """Stop the cluster that was started here if nobody else in this process uses it."""
    global _is_alone, _sharing
    with _lock:
        _sharing -= 1
        if _sharing == 0:
            ray.shutdown()
            _is_alone = False


def is_alone() -> bool:
    """Tell whether the cluster is this machine, for this process: CPUs are not reserved there."""
    return _is_alone


def _start() -> None:
    global _is_alone
    if (address := os.environ.get("RAY_ADDRESS")) is not None:
        # Said aloud, because Ray tries a dead address for minutes.
        logger.warning("connecting to the Ray cluster at RAY_ADDRESS=%s", address)
        ray.init(log_to_driver=False, logging_level="ERROR")
        return
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=OBJECT_STORE_BYTES,
    )
    _is_alone = True


def _in_a_lasting_thread(start: Callable[[], None]) -> None:
    """Start Ray in a thread that lives as long as this process.

    Its processes are told to end with the thread that started them, and a thread of a pool, where
    a server may build its composer, ends long before the server does.
    """
    if threading.current_thread() is threading.main_thread():
        start()
        return
    done, failure = threading.Event(), []

    def run() -> None:
        try:
            start()
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller
            failure.append(error)
        done.set()
        threading.Event().wait()

    threading.Thread(target=run, name="ray-start", daemon=True).start()
    done.wait()
    if failure:
        raise failure[0]


def _require_capacity(experts: Mapping[str, ExpertSpec], units: Sequence[_Unit]) -> None:
    """Refuse what Ray would wait for without end."""
    end = time.monotonic() + FREE_SECONDS
    while (lack := _lacking(experts, ray.available_resources(), units)) and time.monotonic() < end:
        time.sleep(0.2)
    if lack:
        raise CapacityError(f"workers: {lack}")


def _lacking(
    experts: Mapping[str, ExpertSpec], free: Mapping[str, float], units: Sequence[_Unit]
) -> str:
    """Say what of the cluster does not suffice, or nothing."""
    for key, what, field, size in units:
        need = sum(getattr(s.resources, field) * s.resources.replicas for s in experts.values())
        have = free.get(key, 0.0) / size
        if need > have + 1e-6:
            return (
                f"the experts reserve {need:g} {what}, the cluster has {have:g} free; lower "
                f"resources.{field} (fractions are allowed) or resources.replicas, disable an "
                "expert, or add a machine"
            )
    return ""
