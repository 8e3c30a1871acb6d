"""The door on Ray Serve: the same ASGI app in every ingress replica.

``composer.ray_door:build`` is the ``import_path`` of a Serve config file;
``expert-composer deploy --print-config`` writes one.
"""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field
from ray import serve
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from composer.checks import check_registry
from composer.http.app import create_app
from composer.http.server import require_keys
from experts_registry.errors import RegistryError
from experts_registry.registry import Registry

__all__ = ["Arguments", "Reload", "application", "build"]


class Arguments(BaseModel, extra="forbid", frozen=True):
    """The ``args`` of a Serve config file."""

    registry: Path = Field(description="The expert file, an absolute path.")
    workers: bool = Field(False, description="Run experts on Ray workers, not in the replicas.")
    keyless: bool = Field(False, description="Serve although there is no API key: loopback only.")


class Reload(BaseModel, extra="forbid", frozen=True):
    """The ``user_config`` of a Serve config file."""

    file: str | None = Field(None, description="The new text of the expert file.")


def build(arguments: Arguments) -> serve.Application:
    """Build the application of a config file, whose ``deployments`` set its replicas.

    Raises:
        RegistryError: the expert file is wrong.
        OptionError: there is no API key, and it is not said that none is needed.
    """
    return application(arguments)


def application(arguments: Arguments, **options: Any) -> serve.Application:
    """Build the application, with these options of Serve's for its one deployment."""
    registry = Registry.load(arguments.registry)
    if not arguments.keyless:
        require_keys(arguments.registry, "args.keyless: is false")
    text = arguments.registry.read_text(encoding="utf-8")
    door = serve.deployment(name="door")(serve.ingress()(Door))
    return door.options(**options).bind(
        str(registry.path.absolute()), text, workers=arguments.workers
    )


class Door:
    """One ingress replica; it follows the expert file on its own.

    Args:
        path: the expert file.
        text: what is written there where this machine does not have it.
        workers: run experts on Ray workers instead of in this process.
    """

    def __init__(self, path: str, text: str, *, workers: bool) -> None:
        self._path, self._workers = Path(path), workers
        if not self._path.exists():
            _write(self._path, text)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        name = serve.get_replica_context().replica_id.unique_id
        return _Named(create_app(self._path, workers=self._workers), name)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Write a new expert file, which is then followed like every edit.

        Raises:
            RegistryError: it is wrong; the old one serves on.
        """
        text = Reload.model_validate(user_config).file
        if text is None or text == self._path.read_text(encoding="utf-8"):
            return
        found = check_registry(Registry.parse(text, path=self._path))
        if wrong := [one.text for one in found if one.level == "error"]:
            raise RegistryError("\n".join(wrong))
        _write(self._path, text)


class _Named:
    """Says which replica answered, and makes Serve's id of the request ours."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        self._app, self._name = app, name.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (request_id := _uuid(scope)) is not None:
            scope["request_id"] = request_id

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Serve adds its id to every answer itself.
                headers = [
                    (name, value)
                    for name, value in message["headers"]
                    if name != b"x-request-id" or value.decode() != request_id
                ]
                message["headers"] = [*headers, (b"x-composer-replica", self._name)]
            await send(message)

        async def staying() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                # Serve cancels this request as well. Were the app to do so too, the second time
                # would interrupt what the first one cleans up: upstream calls would live on.
                await asyncio.Event().wait()
            return message

        await self._app(scope, staying, named)


def _uuid(scope: Scope) -> str | None:
    """Return the id that Serve gave a request; a client may have sent something else."""
    sent = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
    try:
        return sent if str(UUID(sent)) == sent else None
    except ValueError:
        return None


def _write(path: Path, text: str) -> None:
    """Replace a file as a whole: whoever reads it meanwhile sees the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{serve.get_replica_context().replica_id.unique_id}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
