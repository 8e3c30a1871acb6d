"""How a server logs: text for people or JSON lines for machines, on standard error."""

import json
import logging
import sys
import time
from typing import Any, Literal

from composer.http.access_log import AccessLine

__all__ = ["JsonFormatter", "LogFormat", "set_up_logging"]

LogFormat = Literal["text", "json"]
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=str)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, and message or an access line's fields."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        said: dict[str, Any] = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if isinstance(record.msg, AccessLine):
            said |= record.msg.fields()
        else:
            said["message"] = record.getMessage()
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return _ENCODER.encode(said)


def set_up_logging(how: LogFormat, level: str) -> None:
    """Log this project from ``level`` on, and whatever it uses from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if how == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("composer", "routers", "experts_registry"):
        logging.getLogger(name).setLevel(level.upper())
