"""The contract of the door: OpenAPI 3.1, made from one table of the paths that are served.

A new path is one line in `paths.py`, ``"POST /v1/things": THINGS``, and an `Operation` in a file
of its own, with a `Shape` for what it takes and one for what it answers. A line whose path is not
served is left out of the document; a served path without a line fails `tests/.../test_openapi.py`.
"""
