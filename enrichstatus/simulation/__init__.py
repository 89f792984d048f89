"""A service that only pretends."""

from enrichstatus.simulation.app import FAULTS, create_simulated_app
from enrichstatus.simulation.store import PROFILES, SimulatedStore

__all__ = ["FAULTS", "PROFILES", "SimulatedStore", "create_simulated_app"]
