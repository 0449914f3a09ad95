"""The documentation says what is there: snippets validate, commands, files and messages exist, and no field is missing.

Whether it builds without a warning, links and anchors included, is asked of Sphinx itself.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from perseid.api.load import load_run
from perseid.api.reference import walk
from perseid.api.stages import STAGES
from perseid.cli.app import app
from perseid.data.records import Problem, Question

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
HEAD = "apiVersion: perseid.dev/v1alpha1\nkind: EvolutionRun\nmetadata: {name: snippet}\n"
SOURCES = "".join(
    # Texts that are written as several, one behind the other, are one.
    re.sub(r'"\s*\n\s*f?"', "", path.read_text())
    for room in ("components", "operator", "scripts")
    for path in sorted((ROOT / room).rglob("*"))
    if path.suffix in (".py", ".sh")
)


def blocks(language: str) -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for number, (kind, text) in enumerate(BLOCK.findall(page.read_text())):
            if kind == language:
                found.append((f"{page.relative_to(ROOT)}[{number}]", text))
    return found


def run_snippets() -> list[tuple[str, str]]:
    """Whole run files, and specs without their head; other YAML, such as a chart's values, is not one."""
    found = []
    for place, text in blocks("yaml"):
        data = yaml.safe_load(text)
        if isinstance(data, dict) and data.get("kind") == "EvolutionRun":
            found.append((place, text))
        elif isinstance(data, dict) and set(data) == {"spec"}:
            found.append((place, HEAD + text))
    return found


@pytest.mark.parametrize(("place", "text"), run_snippets(), ids=lambda value: value[:40].split("\n")[0])
def test_a_snippet_of_a_run_file_is_valid(place: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    load_run(file)


def test_there_are_snippets_of_run_files_on_every_page_of_a_stage() -> None:
    with_snippets = {place.split("[")[0] for place, _ in run_snippets()}
    assert with_snippets >= {f"docs/stages/{stage}.md" for stage in STAGES} | {"README.md", "docs/own.md"}


def test_a_record_in_the_docs_can_be_read() -> None:
    records = [text for _, text in blocks("json") if '"id"' in text]
    assert len(records) >= 2
    for text in records:
        kind = Problem if '"statement"' in text else Question
        kind.model_validate_json(text)


def options_of(command: str) -> set[str]:
    found = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    return {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help"
    }


def test_commands_and_options_in_the_docs_exist() -> None:
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    used = []
    for page in PAGES:
        text = page.read_text()
        lines = [line for kind, block in BLOCK.findall(text) if kind == "sh" for line in block.splitlines()]
        for line in [*lines, *re.findall(r"`([^`\n]+)`", text)]:
            words = line.split("#")[0].split()
            if (
                words
                and words[0] in (".venv/bin/perseid", "perseid")
                and len(words) > 1
                and not words[1].startswith("-")
            ):
                used.append((page.name, line, words[1].rstrip(","), words[2:]))
    assert len(used) > 20
    for page, line, command, words in used:
        assert command in commands, f"{page}: {line}"
        options = {word.split("=")[0] for word in words if word.startswith("--")}
        assert options <= options_of(command), f"{page}: {line}"


def test_targets_of_make_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"(?:^|`)make ([a-z][a-z-]+)", page.read_text(), re.MULTILINE):
            assert target in targets, f"{page.name}: make {target}"


def messages() -> list[str]:
    return re.findall(r"^### `(.+)`$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("message", messages())
def test_a_message_that_is_explained_is_one_that_is_given(message: str) -> None:
    assert message in SOURCES


def test_reasons_in_the_tables_of_the_stages_are_those_that_are_counted() -> None:
    told = 0
    for page in sorted((DOCS / "stages").glob("*.md")):
        section = re.search(r"^\| reason \|.*?\n\n", page.read_text(), re.DOTALL | re.MULTILINE)
        rows = section[0].splitlines()[2:] if section else []
        for reason in [word for row in rows if row for word in re.findall(r"`([^`]+)`", row.split("|")[1])]:
            kind, _, fault = reason.partition("-")  # some are made of what failed and how
            made = f'f"{kind}-{{fault}}"' in SOURCES and f'"{fault}"' in SOURCES
            assert made or f'"{reason}"' in SOURCES, f"{page.name}: {reason}"
            told += 1
    assert told > 20


def test_every_stage_has_its_page_and_names_files_that_are_written() -> None:
    assert {page.stem for page in (DOCS / "stages").glob("*.md")} == {*STAGES, "index"}
    for stage in STAGES:
        rows = re.search(
            r"^\| writes \|.*?\n\n", (DOCS / "stages" / f"{stage}.md").read_text(), re.DOTALL | re.MULTILINE
        )
        assert rows, stage
        for name in re.findall(r"`(?:[\w/-]+/)?([\w-]+\.jsonl?)`", rows[0]):
            assert f'"{name}"' in SOURCES, f"{stage}: {name}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    output = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--builder", "html", "--fail-on-warning", "--keep-going", "--quiet"]
    done = subprocess.run(
        [*command, "--doctree-dir", str(output / "doctrees"), str(DOCS), str(output / "html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return output / "html"


@pytest.mark.slow  # builds the site
def test_the_site_builds_without_a_warning_and_has_every_page(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS)).with_suffix(".html").is_file(), page


@pytest.mark.slow  # builds the site
def test_every_field_is_on_the_page_of_fields_with_an_anchor(site: Path) -> None:
    text = (site / "fields.html").read_text()
    fields = [found for top in ("metadata", "spec") for found in list(walk((top,)))[1:]]
    assert len(fields) > 250
    for found in fields:
        assert f'id="field-{found.name.replace("[]", "").replace(".", "-").lower()}"' in text, found.name


@pytest.mark.slow  # builds the site
def test_links_with_anchors_lead_somewhere_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        for link in re.findall(r'href="([^"]*)"', text):
            if "://" in link or link.startswith(("mailto:", "data:")):
                continue
            path, _, anchor = link.partition("#")
            path = path.partition("?")[0]
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.name}: {link}"
            if anchor and target.suffix == ".html":
                assert f'id="{anchor}"' in target.read_text(), f"{page.name}: {link}"
        loaded = re.findall(
            r'<(?:script|img|iframe)[^>]*src="(https?://[^"]*)"|<link[^>]*href="(https?://[^"]*)"', text
        )
        assert loaded == [], page.name
