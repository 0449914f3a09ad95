"""A machine that will not do: memory, disks, rights, locks, files. Each is real, and nothing is made.

Tests that need a limit or a file system of their own start `perseid` as a process, which takes it seconds.
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from refusals import assert_told, perseid, refused, write
from wrong_inputs import OF_FILES

from perseid.cli import exits
from perseid.runner.directory import RunDirectory

ROOT = Path(__file__).parents[2]


def start(
    file: Path, *options: str, limits: Callable[[], None] | None = None, before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-m", "perseid.cli", "run", str(file), *options]
    return subprocess.run(
        command, cwd=file.parent, preexec_fn=limits, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_cache_that_no_memory_can_hold_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("perseid.cli.preflight_machine.GPU_DEVICES", ())
    run = OF_FILES.replace("{type: transformers}", "{type: vllm, vllm: {kvCacheGib: 4096}}")
    refused(perseid("run", write(tmp_path, run)), "kvCacheGib is 4096 GiB", "GiB of memory", "lower kvCacheGib")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow  # a process
def test_a_limit_on_memory_that_the_model_does_not_fit_is_told(tmp_path: Path) -> None:
    run = OF_FILES.replace("{type: transformers}", "{type: vllm, vllm: {kvCacheGib: 16}}")
    limit = 8 << 30  # Python's own libraries reserve a few
    done = start(write(tmp_path, run), limits=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    assert done.returncode == exits.MISTAKE, done.stderr
    assert_told(done.stdout, done.stderr, "the limit of `ulimit -v` allows", "lower kvCacheGib")
    assert not (tmp_path / "runs").exists()


def tmpfs(size: str) -> tuple[str, ...]:
    """The beginning of a command that sees an empty file system of that size in ./runs; skips where none can be."""
    mount = f"mkdir -p runs && mount -t tmpfs -o size={size} none runs"
    start = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
    try:
        subprocess.run([*start, "mkdir -p /tmp/perseid-probe && mount -t tmpfs none /tmp/perseid-probe"], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets nobody mount a file system of their own")
    # Afterwards the file system is gone: what was written must be told before.
    return (*start, f'{mount} && "$@"; code=$?; find runs -type f -size +0; exit $code', "sh")


@pytest.mark.slow  # a process
def test_a_disk_that_a_model_does_not_fit_is_told_before_anything_is_written(tmp_path: Path) -> None:
    done = start(write(tmp_path), before=tmpfs("16k"))
    assert done.returncode == exits.MISTAKE, done.stderr
    assert_told(done.stdout, done.stderr, "runs has 16 KiB of disk left", "0.25 GiB or more", "--runs-dir")


@pytest.mark.slow  # two processes
def test_a_disk_that_is_full_is_told_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """The run's model lies elsewhere, so that nothing is known of its size before."""
    run = OF_FILES + "  model: {ref: 's3://bucket/model'}\n  suspend: true\n"
    done = start(write(tmp_path, run), before=tmpfs("8k,nr_inodes=3"))
    assert done.returncode == exits.MISTAKE, done.stderr
    assert_told(done.stdout, done.stderr, "cannot be written: No space left on device", "make room", "goes on")
    assert start(tmp_path / "run.yaml", "--quiet").returncode == exits.SUSPENDED


@pytest.mark.slow  # a process
def test_a_file_that_may_not_grow_leaves_nothing_half_written(tmp_path: Path) -> None:
    file = write(tmp_path)
    done = start(file, limits=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)))
    assert done.returncode == exits.MISTAKE, done.stderr
    assert_told(done.stdout, done.stderr, "cannot be written: File too large", "--runs-dir")
    assert [path.name for path in (tmp_path / "runs" / "small").iterdir()] == [".lock"]


def bound_by_rights() -> None:
    """From here on rights count for root, too: what is started has no way around them."""
    drop_from_bounding_set, override = 24, (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    for capability in override:
        ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)


@pytest.mark.slow  # a process
def test_a_directory_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    file = write(tmp_path)
    (tmp_path / "runs").mkdir(mode=0o555)
    done = start(file, limits=bound_by_rights)
    assert done.returncode == exits.MISTAKE, done.stderr
    assert_told(done.stdout, done.stderr, f"{tmp_path / 'runs' / 'small'} cannot be written: Permission denied")
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_file_in_place_of_the_directory_of_runs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("notes\n")
    refused(perseid("run", write(tmp_path)), "cannot be written: Not a directory", "--runs-dir")
    assert (tmp_path / "runs").read_text() == "notes\n"


def test_a_directory_that_another_process_holds_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path)
    with RunDirectory(tmp_path / "runs" / "small").locked():
        refused(perseid("run", file), "in use by another command of Perseid's", "wait for it", "another metadata.name")


def test_a_directory_of_another_run_is_told_with_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    suspended = OF_FILES + "  suspend: true\n"
    assert perseid("run", write(tmp_path, suspended), "--quiet").exit_code == exits.SUSPENDED
    kept = (tmp_path / "runs" / "small" / "run.json").read_bytes()
    result = perseid("run", write(tmp_path, suspended + "  seed: 5\n"))
    assert result.exit_code == exits.MISTAKE
    assert "spec.seed: 0 -> 5" in result.stderr
    assert "Undo the changes" in result.stderr
    assert (tmp_path / "runs" / "small" / "run.json").read_bytes() == kept


@pytest.mark.parametrize("damaged", ["run.json", "status.json"])
def test_a_file_of_the_run_that_somebody_damaged_is_told(
    damaged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, OF_FILES + "  suspend: true\n")
    assert perseid("run", file, "--quiet").exit_code == exits.SUSPENDED
    (tmp_path / "runs" / "small" / damaged).write_text("{")
    refused(perseid("run", file), f"{damaged} cannot be read", "move the directory away")


def test_a_start_from_a_run_that_is_not_there_leaves_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the file with the right name would be refused as another run."""
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, OF_FILES + "  model: {evolutionRun: other}\n")
    refused(perseid("run", file), "spec.model.evolutionRun is other", "run that one first")
    assert not (tmp_path / "runs" / "small" / "run.json").exists()


@pytest.mark.parametrize("command", ["compile", "report"])
def test_an_output_below_a_file_is_told(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, OF_FILES + "  suspend: true\n")
    assert perseid("run", file, "--quiet").exit_code == exits.SUSPENDED
    target = file if command == "compile" else tmp_path / "runs" / "small"
    refused(perseid(command, target, "-o", file / "page"), f"{file} is a file and no directory; make")


def test_another_python_is_told_by_the_setup(tmp_path: Path) -> None:
    """What `make setup` runs, in a copy of its own with a python3 that calls itself 3.9."""
    for name in ("scripts/setup.sh", "requirements/cpu.txt", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python3"
    python.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["sh", str(tmp_path / "scripts" / "setup.sh")],
        env={**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == exits.MISTAKE
    assert_told(done.stdout, done.stderr, "Perseid needs Python 3.11 or 3.12, but python3 is Python 3.9.2", "install")
    assert not (tmp_path / ".venv").exists()
