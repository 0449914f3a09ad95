"""What can go wrong with the sandbox itself, as against with the code in it."""

from __future__ import annotations


class SandboxError(Exception):
    """The sandbox failed; it says nothing about the generated code."""


class SandboxUnavailableError(SandboxError):
    """This machine cannot confine generated code, and so none is run. The message says why and what to do."""
