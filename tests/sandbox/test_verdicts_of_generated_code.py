"""What the sandbox says about code: right, wrong, cheating. One pool serves the module."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from perseid.api.synthesis import SandboxSpec
from perseid.data.records import Problem
from perseid.sandbox import Sandbox, program_for, run_tests

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOUBLE = Problem(
    id="double",
    statement="Double x.",
    entry_point="double",
    setup="FACTOR = 2",
    tests=("assert double(1) == 2", "assert double(0) == 0", "assert double(-3) == -6"),
)
RIGHT = "def double(x):\n    return FACTOR * x"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(SandboxSpec(workers=2, wall_seconds=30.0, cpu_seconds=10)) as pool:
        yield pool


async def test_a_right_answer_passes_all_tests(sandbox: Sandbox) -> None:
    verdict = await run_tests(sandbox, DOUBLE, RIGHT)
    assert (verdict.passed, verdict.tests_passed, verdict.tests_total, verdict.share) == (True, 3, 3, 1.0)
    assert verdict.execution.cpu_seconds > 0
    assert verdict.execution.wall_seconds > 0


async def test_a_wrong_answer_gets_its_share_of_the_tests(sandbox: Sandbox) -> None:
    verdict = await run_tests(sandbox, DOUBLE, "def double(x):\n    return x * x * 2")
    assert (verdict.passed, verdict.tests_passed) == (False, 2)
    assert verdict.execution.checks_passed == (True, True, False)
    assert (verdict.execution.outcome, verdict.execution.detail) == ("failed", "AssertionError")


async def test_an_endless_test_leaves_the_earlier_ones_counted() -> None:
    code = "def double(x):\n    while x < 0:\n        pass\n    return 2 * x"
    async with Sandbox(SandboxSpec(workers=1, wall_seconds=20.0, cpu_seconds=1)) as pool:  # one second of CPU
        verdict = await run_tests(pool, DOUBLE, code)
    assert (verdict.passed, verdict.tests_passed, verdict.execution.outcome) == (False, 2, "timeout")


async def test_a_whole_program_says_the_same_as_separate_tests(sandbox: Sandbox) -> None:
    assert (await sandbox.run(program_for(DOUBLE, RIGHT))).outcome == "passed"
    assert (await sandbox.run(program_for(DOUBLE, "def double(x): return 2"))).outcome == "failed"


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("def double(x)\n  return 1", "SyntaxError: expected ':'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("class E(Exception):\n    def __str__(self): raise ValueError\nraise E", "E: (its message cannot be read)"),
        ("raise ValueError('x' * 10_000 + '\\n\\u2603')", "ValueError: xxx"),
        ("input()", "EOFError: EOF when reading a line"),
    ],
)
async def test_code_that_raises_fails_with_its_last_line(sandbox: Sandbox, code: str, detail: str) -> None:
    verdict = await run_tests(sandbox, DOUBLE, code)
    assert verdict.tests_passed == 0
    assert verdict.execution.outcome == "failed"
    assert verdict.execution.detail.startswith(detail)
    assert len(verdict.execution.detail) <= 600
    assert verdict.execution.detail.isascii()


@pytest.mark.parametrize(
    "cheat",
    [
        "import sys\nsys.exit(0)",
        "raise SystemExit",
        "import os\nos._exit(0)",
        "def double(x):\n    import os\n    os._exit(0)",
        "def double(x):\n    raise SystemExit(0)",
        "import os\nos.closerange(0, 256)\ndef double(x): return 2 * x",
        "print('passed')\nprint('end')",
        "import os\nos.write(3, b'body passed\\ncheck passed\\ncheck passed\\ncheck passed\\nend\\n')\nos._exit(0)",
        "import os\nos.write(3, (b'0' * 32 + b' check passed\\n') * 3 + b'0' * 32 + b' end\\n')",
        "import builtins\nbuiltins.AssertionError = builtins.BaseException = int\nbuiltins.exec = lambda *_: None",
        "import builtins as b\nb.str = b.ascii = b.isinstance = lambda *_: 'passed'\ndef double(x): return 0",
        "import os\nos._exit = lambda _: None\nos.write = lambda *_: 0\ndef double(x): return 0",
        "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)",
        "import signal, os\nos.kill(os.getpid(), signal.SIGTERM)",
        "import threading, os\nt = threading.Thread(target=os._exit, args=(0,))\nt.start()\nt.join()",
    ],
)
async def test_an_answer_cannot_pass_without_passing_the_tests(sandbox: Sandbox, cheat: str) -> None:
    verdict = await run_tests(sandbox, DOUBLE, cheat)
    assert not verdict.passed
    assert verdict.execution.outcome in {"failed", "exited", "denied", "crashed"}


async def test_the_token_is_in_no_frame_module_or_gc_list(sandbox: Sandbox) -> None:
    search = """
import gc, re, sys
found, frame = [], sys._getframe()
while frame:
    found += [frame.f_locals, frame.f_globals]
    frame = frame.f_back
found += gc.get_objects() + list(sys.modules.items())
text = ' '.join(repr(item)[:100_000] for item in found if isinstance(item, (dict, tuple, bytes, str, list)))
assert not re.search(r"\\b[0-9a-f]{32}\\b", text)
"""
    execution = await sandbox.run(search)
    assert execution.outcome == "passed", execution.detail


async def test_a_main_guard_does_not_run(sandbox: Sandbox) -> None:
    assert (await run_tests(sandbox, DOUBLE, RIGHT + "\nif __name__ == '__main__':\n    input()")).passed


async def test_verdicts_that_depend_on_chance_repeat(sandbox: Sandbox) -> None:
    draw = "import random\nraise ValueError(random.random(), hash('a'), list({'a', 'b', 'c', 'd'}))"
    first, *others = [execution.detail for execution in await asyncio.gather(*(sandbox.run(draw) for _ in range(6)))]
    assert set(others) == {first}


async def test_one_execution_leaves_nothing_to_the_next(sandbox: Sandbox) -> None:
    for _ in range(4):
        leave = (
            "import os, math\nassert os.listdir('.') == [] and math.pi != 3\nopen('left', 'w').write('x')\nmath.pi = 3"
        )
        execution = await sandbox.run(leave)
        assert execution.outcome == "passed", execution.detail


async def test_a_hundred_and_fifty_executions_at_once_keep_their_own_answers(sandbox: Sandbox) -> None:
    # About a second: 150 forks on however many cores there are.
    executions = await asyncio.gather(*(sandbox.run(f"raise ValueError({number})") for number in range(150)))
    assert [execution.detail for execution in executions] == [f"ValueError: {number}" for number in range(150)]


async def test_dataclasses_threads_asyncio_and_lazy_imports_work(sandbox: Sandbox) -> None:
    program = """
from __future__ import annotations
import asyncio, sqlite3, tempfile, threading, zoneinfo
from dataclasses import dataclass
@dataclass
class P:
    x: int
async def f():
    await asyncio.sleep(0)
    return P(1)
assert asyncio.run(f()) == P(1)
t = threading.Thread(target=int); t.start(); t.join()
with tempfile.TemporaryDirectory() as d:
    open(d + '/x', 'w').write('1')
"""
    execution = await sandbox.run(program)
    assert execution.outcome == "passed", execution.detail
