"""Floors: what the same workloads cost in C, compiled on the spot, and what this machine can do at all.

No rival and no goal of its own: a figure beside which the distance of everything else can be read. The C sources lie
beside this file; programs.py builds them, runs.py plays them.
"""

from .programs import FloorFailed, FloorUnsupported
from .runs import FLOORS, Floor, FloorResult, machine_floors, run_floor

__all__ = ["FLOORS", "Floor", "FloorFailed", "FloorResult", "FloorUnsupported", "machine_floors", "run_floor"]
