"""Which experts to ask: estimators that learn from recorded outcomes."""

from routers.base import Router, load_router
from routers.data import RoutingDataset
from routers.decision import Candidate, Decision, Prediction

__all__ = ["Candidate", "Decision", "Prediction", "Router", "RoutingDataset", "load_router"]
