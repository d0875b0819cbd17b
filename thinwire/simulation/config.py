"""The section of a run's configuration that only ``thinwire simulate`` reads."""

from dataclasses import dataclass, field
from typing import Any

from thinwire.simulation.availability import Always, Availability, build_availability
from thinwire.simulation.speed import Constant, Speed, build_speed


@dataclass(frozen=True)
class SimulationConfig:
    """Clients that come and go, on wires of their own: what a simulated clock needs."""

    availability: dict[str, Any] = field(default_factory=dict)  # when clients are there; empty: always
    speed: dict[str, Any] = field(default_factory=dict)  # how fast they and their wires are; empty: no simulated clock

    def __post_init__(self) -> None:
        self.models()

    def models(self) -> tuple[Availability, Speed] | None:
        """Who is there, and how fast; None where time is not simulated. Raises ConfigError.

        Clients that are not always there need a clock: constant speed, where none is named.
        """
        availability = build_availability(self.availability) if self.availability else Always()
        if not self.speed and isinstance(availability, Always):
            return None
        return availability, build_speed(self.speed) if self.speed else Constant()
