"""Write the head of an answer together with the first bytes of its body.

Each write is a system call that wakes the client: for a short answer the dearest thing of all.
"""

import asyncio

__all__ = ["Joined"]

_CONTINUE = b"HTTP/1.1 100 "


class Joined:
    """What one answer is written to: a transport, as far as `RequestResponseCycle` uses one.

    Args:
        transport: of the connection.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self._is_begun = False

    def write(self, data: bytes) -> None:
        """Keep the head; write everything else, behind the head where that was kept."""
        if self._head is not None:
            data, self._head = self._head + data, None
        elif not self._is_begun and not data.startswith(_CONTINUE):
            self._head, self._is_begun = data, True
            return
        self._transport.write(data)

    def is_closing(self) -> bool:
        """Tell whether the connection ends."""
        return self._transport.is_closing()

    def close(self) -> None:
        """End the connection once all is written."""
        if self._head is not None:  # the app failed before its first piece
            self.write(b"")
        self._transport.close()
