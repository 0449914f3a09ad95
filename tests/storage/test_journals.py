"""How a growing file is split into objects."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from perseid.storage.index import Segment
from perseid.storage.journals import plan, whole_lines


def grown(growths: list[int]) -> tuple[list[Segment], int]:
    """The segments after pushes of that many new bytes each, and the bytes that were uploaded in all."""
    segments: list[Segment] = []
    length = uploaded = 0
    for growth in growths:
        length += growth
        step = plan(segments, length)
        assert step is not None
        assert sum(segment.size for segment in step.kept) == step.start, "a gap, or bytes twice"
        segments = [*step.kept, Segment(name=f"{step.start}-{step.stop}", size=step.stop - step.start)]
        uploaded += step.stop - step.start
    return segments, uploaded


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=300))
def test_segments_are_the_file_are_few_and_are_seldom_written_again(growths: list[int]) -> None:
    segments, uploaded = grown(growths)
    total = sum(growths)
    assert sum(segment.size for segment in segments) == total
    assert all(first.size > 2 * second.size for first, second in itertools.pairwise(segments))
    assert len(segments) <= math.log2(total) + 1
    # Whoever takes a segment up is at least one and a half times as big.
    assert uploaded <= total * (1 + math.log(total, 1.5))


def test_a_file_that_has_not_grown_needs_no_push() -> None:
    assert plan([Segment(name="a", size=10)], 10) is None
    assert plan([], 0) is None


def test_a_long_run_of_equal_lines_uploads_each_byte_a_few_times() -> None:
    segments, uploaded = grown([1000] * 4096)
    assert len(segments) <= 12
    assert uploaded / 4_096_000 < 8


def test_a_line_that_is_half_written_is_left_for_the_next_push(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for content, whole in [(b"", 0), (b"half", 0), (b"one\n", 4), (b"one\ntw", 4), (b"\n" + b"x" * 200_000, 1)]:
        path.write_bytes(content)
        assert whole_lines(path) == whole
