"""The libraries that can compute the network."""

from __future__ import annotations

from simple_dqn.deepqnetwork import BackendOptions, DeepQNetwork, find_device
from simple_dqn.learning.neon_network import NeonNetwork, find_backend


def library_of(backend: BackendOptions) -> tuple[type[DeepQNetwork] | type[NeonNetwork], bool]:
    """The class of the network, and whether it runs on a GPU and so leaves the processor's cores to the games."""
    if backend.library == "neon":
        return NeonNetwork, find_backend(backend) == "gpu"
    return DeepQNetwork, find_device(backend).type == "cuda"
