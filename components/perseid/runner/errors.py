"""What can keep a run from going on, in words for the person who asked for it."""


class RunnerError(Exception):
    """A user's mistake or a circumstance that only they can change. The message says what, where and what to do."""
