"""What keeps a stage from giving a result that means something."""


class StageError(Exception):
    """A stage cannot go on. The message says why and what to do."""
