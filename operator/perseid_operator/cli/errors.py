"""What a user of the commands can do something about."""

from __future__ import annotations


class ClusterError(Exception):
    """Something between the command and the cluster is wrong; the message says what, where, and what to do."""


class WatchEndedError(Exception):
    """The API server has ended a watch, as it does now and then. List again and go on."""
