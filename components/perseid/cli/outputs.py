"""What is said of a file that a command was to write and cannot."""

from __future__ import annotations

from pathlib import Path


def cannot_write(output: Path, error: OSError) -> str:
    """One sentence: which file, why, and what to do."""
    there = next(parent for parent in output.absolute().parents if parent.exists())
    why = error.strerror if there.is_dir() else f"{there} is a file and no directory"
    return f"cannot write {output}: {why}; make that possible, or name another file with --output"
