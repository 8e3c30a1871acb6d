"""A retriever of words that counts what it is asked."""

from collections import Counter

from experts_registry.backends.hashing import HashingEmbedder

EMBEDDED = Counter()  # (name, text) of queries


class CountingEmbedder(HashingEmbedder):
    def __init__(self, spec):
        super().__init__(spec)
        self.name = spec.name

    def embed(self, texts, *, role):
        if role == "query":
            EMBEDDED.update((self.name, text) for text in texts)
        return super().embed(texts, role=role)
