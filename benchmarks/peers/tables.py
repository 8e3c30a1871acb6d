"""The shared outcome tables, each with a cost in USD."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from experts_registry.errors import DataError
from routers.data import RoutingDataset

__all__ = ["OUTPUT_TOKENS", "TABLES", "load_table", "price_costs"]

TABLES = ("routing_llmrouter", "routing_mmlupro", "routing_zeroeval", "routing_routellm")
OUTPUT_TOKENS = 256  # assumed where a table counts none
_CHARACTERS_PER_TOKEN = 4


def load_table(path: Path) -> RoutingDataset:
    """Read a table, rows without missing quality; costs are derived where it has none.

    Raises:
        DataError: the table, or the price list beside it, is missing.
    """
    data = RoutingDataset.load(path)
    data = data.select(np.flatnonzero(~np.isnan(data.quality).any(axis=1)))
    if not np.isnan(data.cost).any():
        return data
    try:
        prices = json.loads((path / "models.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: has neither costs nor prices in models.json") from error
    return price_costs(data, prices)


def price_costs(data: RoutingDataset, prices: dict[str, dict[str, float]]) -> RoutingDataset:
    """Return the data with costs of list price x estimated tokens, for every cell."""
    keys = ("input_usd_per_mtok", "output_usd_per_mtok")
    price = np.array([[prices[name][key] for key in keys] for name in data.experts])  # (m, 2)
    read = np.array([len(text) / _CHARACTERS_PER_TOKEN for text in data.queries])
    tokens = np.stack([read, np.full(len(data), OUTPUT_TOKENS)], axis=1)  # (n, 2)
    return replace(data, cost=tokens @ price.T / 1e6, cost_unit="usd")
