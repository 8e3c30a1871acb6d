"""The parts of the retrieval gate: what it reads, learns, is judged by, and is compared with."""
