"""The workers of a SearchJob or TrainingJob as planners decide them and children/ builds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mizzen_api.accelerators import CPU, Accelerator
from mizzen_api.meta import Resources
from mizzen_operator.plan import Manifest


@dataclass(frozen=True)
class Devices:
    """Accelerators of each worker, and the nodes that have them."""

    row: Accelerator = CPU
    count: int = 0
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Manifest, ...] = ()


@dataclass(frozen=True)
class Crew:
    """How many workers, and what each of them gets."""

    most: int
    least: int
    resources: Resources
    resources_field: str  # where a user finds them in the spec
    devices: Devices = field(default_factory=Devices)
    image: str = ""  # in place of the runtime image, also of the head
    code: str = ""  # ConfigMap with the user's Python files
