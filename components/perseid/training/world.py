"""Which processes train together: those of one machine, or those of several nodes, as torch's launcher names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perseid.training.errors import TrainingError

RENDEZVOUS_SECONDS = 3600
"""How long nodes wait for each other: each fetches the base first, and one may find it in its cache."""


@dataclass(frozen=True, slots=True)
class World:
    """The processes of one training, as one of its nodes sees them."""

    processes: int
    """On each node: one on each GPU, or else so many on its CPUs."""
    nodes: int = 1
    node: int = 0
    """Which of the nodes this is. Node 0 has the main process, which writes checkpoints and model."""
    address: str = ""
    """Of node 0, where there are several."""
    port: int = 0

    @property
    def size(self) -> int:
        """Processes of all nodes."""
        return self.processes * self.nodes

    def arguments(self) -> list[str]:
        """What torch's launcher is started with on this node."""
        each = ["--nproc-per-node", str(self.processes)]
        if self.nodes == 1:
            return ["--standalone", *each]
        place = ["--nnodes", str(self.nodes), "--node-rank", str(self.node)]
        main = ["--master-addr", self.address, "--master-port", str(self.port)]
        return [*place, *main, *each, "--rdzv-backend", "static", "--rdzv-conf", f"timeout={RENDEZVOUS_SECONDS}"]

    @classmethod
    def of_nodes(cls, environment: Mapping[str, str]) -> World | None:
        """The world that a TrainJob's torch policy describes (PET_NNODES and so on); None where there is none.

        Raises TrainingError where it is described badly.
        """
        if "PET_NNODES" not in environment:
            return None
        try:
            return cls(
                processes=int(environment["PET_NPROC_PER_NODE"]),
                nodes=int(environment["PET_NNODES"]),
                node=int(environment["PET_NODE_RANK"]),
                address=environment["PET_MASTER_ADDR"],
                port=int(environment["PET_MASTER_PORT"]),
            )
        except (KeyError, ValueError) as error:
            raise TrainingError(
                f"the environment does not say which node of a training this is ({error}): PET_NNODES,"
                " PET_NPROC_PER_NODE, PET_NODE_RANK, PET_MASTER_ADDR and PET_MASTER_PORT come from the torch policy of"
                " the TrainJob's runtime; use one with mlPolicy.torch"
            ) from error
