"""What stops a launcher."""


class TrainJobError(Exception):
    """A stage that could not be run on several nodes. The message says why and what to do."""
