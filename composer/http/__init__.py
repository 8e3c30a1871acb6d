"""The HTTP door: OpenAI's API over a `Composer`, as one ASGI app; needs the extra ``serve``."""
