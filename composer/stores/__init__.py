"""Stores: passages on disk, one index per kind of vectors, and how they are searched."""
