"""Retrieving from real stores, with the real gate: hashing encoder, echo experts."""

from pathlib import Path

import numpy as np
import pytest

from composer import Composer
from composer.progress import steps
from composer.stores.gathering import Change
from composer.stores.of_registry import build_store
from composer.stores.store import Store
from experts_registry.registry import Registry
from routers.gates.data import GateData
from routers.gating import Gate
from tests.composer.libraries import FACTS, REGISTRY
