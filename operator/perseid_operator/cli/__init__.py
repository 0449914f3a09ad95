"""`perseid get`, `describe`, `logs`, `suspend`, `resume`, `approve` and `report`: runs in a cluster, from a terminal.

A plugin of the command `perseid` (entry-point group `perseid.commands`). Importing it costs nothing: Kubernetes' client
is imported when a command runs. What kubectl does as well is left to kubectl. `kubeconfig` finds the cluster, `access`
speaks to its API server and turns what goes wrong into a paragraph, `runs` reads what it answers, `tables` shows it;
`listing`, `logs`, `pods`, `approval`, `report`, `results` and `history` know what one command needs.
"""

from __future__ import annotations

from perseid_operator.cli.commands import commands

__all__ = ["commands"]
