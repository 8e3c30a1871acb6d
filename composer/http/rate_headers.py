"""The headers ``x-ratelimit-...``, by OpenAI's names: what a key's rates leave it."""

from composer.http.visit import Visit

__all__ = ["rates_left"]


def rates_left(visit: Visit | None) -> dict[str, str]:
    """Return the headers of an answer; none where no key was shown, or its key has no rates.

    What an answer may use at most counts until it is complete, as it does for the limit itself.
    """
    if visit is None or (key := visit.key) is None or (key.rpm is None and key.tpm is None):
        return {}
    used = visit.access.admission.rates.used(key.id)
    headers = {}
    for what, limit, taken in (
        ("requests", key.rpm, used.requests),
        ("tokens", key.tpm, used.tokens),
    ):
        if limit is not None:
            headers[f"x-ratelimit-limit-{what}"] = str(limit)
            headers[f"x-ratelimit-remaining-{what}"] = str(max(0, limit - taken))
    return headers
