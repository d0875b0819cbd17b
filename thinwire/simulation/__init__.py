"""What a simulation knows of its clients: when they are there, and how fast they and their wires are."""

from thinwire.simulation.availability import Availability, Presence
from thinwire.simulation.config import SimulationConfig
from thinwire.simulation.speed import Pace, Speed

__all__ = ["Availability", "Pace", "Presence", "SimulationConfig", "Speed"]
