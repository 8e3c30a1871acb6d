"""One file per backend; each speaks `LLM` or `Embedder`."""
