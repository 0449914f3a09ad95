"""The report of a run as a page: what is said on it, and that nothing that a model writes can break it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fabricated_results import BETTER, RUN, WORSE, fabricate
from fabricated_stages import PROBLEMS, write_answers, write_manifest, write_meteor, write_search
from perseid.api.base import replace
from perseid.api.files import TREES
from perseid.api.layout import Layout
from perseid.api.result import MeanScore, StageScore, WinRate, parse_result
from perseid.api.spec import EvolutionRun
from perseid.api.status import EvolutionRunStatus
from perseid.data.errors import DataError
from perseid.data.jsonl import read_jsonl, write_jsonl
from perseid.data.records import TreeRecord
from perseid.report import trees
from perseid.report.document import LEAST_SHOWN, TREES_SHOWN, Report, read_report
from perseid.report.render import TEMPLATES, TEXT_SHOWN, render
from perseid.search.evaluators import likelihood_score
from perseid.search.tree import Tree

NOW = datetime(2026, 1, 2, tzinfo=UTC)
BOTH = replace(RUN, spec=replace(RUN.spec, methods=["sra-mcts", "meteor"]))
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&lt;{{ 7 * 7 }}"


class Page(HTMLParser):
    """Elements, attributes and text of a page, and whether every element is closed."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in {"script", "style"}:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(root: Path, run: EvolutionRun, status: EvolutionRunStatus) -> Report:
    return read_report(run, status, root, NOW)


def whole(root: Path, *, says: str = "", informed: bool = True) -> Report:
    """A run of both methods, two generations, the second without METEOR's files."""
    status = fabricate(root, BETTER, WORSE)
    for generation in (0, 1):
        write_search(Layout(root, generation, 0), informed=informed, says=says)
    write_meteor(Layout(root, 0, 0), says=says)
    write_answers(Layout(root, 0, 0), "dev", "base")
    return read(root, BOTH, status)


def test_a_page_tells_scores_yield_trees_answers_meteor_work_configuration_and_digests(tmp_path: Path) -> None:
    page = Page(render(whole(tmp_path)))
    assert page.open == []
    for said in (
        "fabricated Completed",
        "68.8 % [34.4, 84.4]",
        "4 better",
        f"{PROBLEMS} trees with {8 * PROBLEMS} steps; stopped by rounds {PROBLEMS}",
        "Write a function f0(x) that returns x plus 0.",
        "The sum is right so far.",
        "best path",
        "2 of 4 answers passed",
        "return x + 0",
        "assertion: assert f1(1) == 2",
        "tests failed",
        "accepted at once",
        "right after revision",
        "quarantine: never right",
        "rolled back",
        "Name both units, then multiply.",
        "same verdict",
        "1 min 15 s",
        "sha256:data",
        "bootstrap: 200",
        "4.88 million parameters",
    ):
        assert said in page.text, said


def test_nothing_that_is_written_by_a_model_becomes_markup(tmp_path: Path) -> None:
    harmless = Page(render(whole(tmp_path / "harmless", says="plain")))
    html = render(whole(tmp_path / "hostile", says=HOSTILE))
    page = Page(html)
    assert page.tags == harmless.tags
    assert [name for name, _ in page.attributes] == [name for name, _ in harmless.attributes]
    assert "img" not in page.tags
    assert page.tags.count("script") == 1
    assert HOSTILE in page.text, "it is shown as it was written"


def test_hostile_names_and_reasons_are_escaped_too(tmp_path: Path) -> None:
    status = fabricate(tmp_path, BETTER)
    write_search(Layout(tmp_path, 0, 0))
    name = "family/<script>alert(1)</script>"
    for path in tmp_path.rglob("*.jsonl"):
        path.write_text(path.read_text().replace("family/problem-0", name).replace("duplicate", "<b>dup</b>"))
    page = Page(render(read(tmp_path, RUN, status)))
    assert name in page.text
    assert "<b>dup</b>" in page.text
    assert page.tags.count("script") == 1


def test_a_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    page = Page(render(whole(tmp_path)))
    assert not {"link", "img", "iframe", "object"} & set(page.tags)
    links = [value or "" for name, value in page.attributes if name in {"src", "href", "action", "srcset"}]
    assert links
    assert all(link.startswith("#") for link in links)
    identities = [value for name, value in page.attributes if name == "id"]
    assert len(set(identities)) == len(identities)
    assert {link[1:] for link in links} <= set(identities), "every link leads somewhere"


def test_a_search_by_informative_values_and_one_by_noise_are_told_apart_in_a_sentence(tmp_path: Path) -> None:
    informed, noise = whole(tmp_path / "informed"), whole(tmp_path / "noise", informed=False)
    assert [one.tone for one in informed.findings] == ["good", "good", "good"]
    assert "The search of generation 0 was guided by values that tell right from wrong" in Page(render(informed)).text
    assert [one.tone for one in noise.findings] == ["bad", "good", "bad"], "the second is METEOR's"
    assert "The search of generation 0 was guided by noise: inside a problem" in Page(render(noise)).text
    assert "The learner of generation 0 knows its right answers from its wrong ones" in Page(render(noise)).text


def test_every_evaluator_with_an_outcome_is_calibrated(tmp_path: Path) -> None:
    report = whole(tmp_path)
    found = {one.name: one.measured for one in report.generations[0].evaluators}
    assert list(found) == [
        "step-value",
        "step-score",
        "step-likelihood",
        "plan-value",
        "likelihood",
        "self-verdict-before",
        "self-verdict-after",
    ]
    # Two plans of two steps with two answers each; of each problem with an even number one plan is right.
    steps = found["step-value"].calibration
    assert (steps.observations, steps.right) == (PROBLEMS * 8, PROBLEMS // 2 * 4)
    assert found["likelihood"].calibration.auc == 1.0
    assert found["self-verdict-before"].judgement == "noise"
    assert found["self-verdict-after"].judgement == "informative"
    assert [one.name for one in report.evaluators] == ["likelihood of answers to dev by the base model"]


def test_a_step_whose_code_the_search_has_run_has_a_verdict_of_its_own_and_is_called_made_of_it(
    tmp_path: Path,
) -> None:
    status = fabricate(tmp_path, BETTER)
    write_search(Layout(tmp_path, 0, 0))
    execute_every_step(Layout(tmp_path, 0, 0))
    report = read(tmp_path, RUN, status)
    found = {one.name: one for one in report.generations[0].evaluators}
    # Eight steps of each problem; the two that became plans have two answers each.
    steps = found["step-likelihood"]
    assert steps.measured.calibration.observations == PROBLEMS * (8 + 2)
    assert not steps.circular
    assert [name for name, one in found.items() if one.circular] == [
        "step-value",
        "step-score",
        "part-execution",
        "plan-value",
    ]
    (finding,) = report.findings
    assert finding.tone == "unsure"
    assert "made of the very verdicts" in finding.text
    assert Page(render(report)).text.count("made of the very verdicts") == 1 + 4


def execute_every_step(layout: Layout) -> None:
    """As an evaluator that runs code would leave the trees: of a step above five all code passed, of others a half."""
    file = layout.stage("synthesize") / TREES
    records = []
    for record in read_jsonl(file, TreeRecord):
        tree = Tree.from_dict(record.tree)
        for node in tree.nodes[1:]:
            node.evidence = {"execution": 10.0 if (node.value or 0.0) > 5 else 5.0}
        records.append(record.model_copy(update={"tree": tree.to_dict()}))
    write_jsonl(file, records)


def test_the_likelihood_as_the_whole_evaluator_has_one_row(tmp_path: Path) -> None:
    status = fabricate(tmp_path, BETTER)
    layout = Layout(tmp_path, 0, 0)
    write_search(layout)
    file = layout.stage("synthesize") / TREES
    records = list(read_jsonl(file, TreeRecord))
    for record in records:
        for node in record.tree["nodes"][1:]:
            node["score"] = likelihood_score(node["logprob"] / node["tokens"])
    write_jsonl(file, records)
    names = [one.name for one in read(tmp_path, RUN, status).generations[0].evaluators]
    assert "step-likelihood" in names
    assert "step-score" not in names


def test_too_little_evidence_about_a_search_is_said_and_no_verdict_made_up(tmp_path: Path) -> None:
    status = fabricate(tmp_path, BETTER)
    write_search(Layout(tmp_path, 0, 0), problems=3)
    (finding,) = read(tmp_path, RUN, status).findings
    assert finding.tone == "unsure"
    assert "cannot be told" in finding.text


def test_the_kept_and_dropped_answers_add_up(tmp_path: Path) -> None:
    answers = whole(tmp_path).generations[0].answers
    assert answers is not None
    assert answers.fates.total() == answers.total == PROBLEMS * 4
    assert answers.fates["kept"] == answers.kept == PROBLEMS // 2
    assert answers.passed == PROBLEMS
    assert answers.solved == PROBLEMS // 2


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    page = Page(render(read(tmp_path, RUN, fabricate(tmp_path))))
    assert "The run is not over" in page.text
    assert "No generation has been scored yet." in page.text
    assert "to come" in page.text


def test_a_stage_that_has_ended_is_on_the_page_before_its_generation_has(tmp_path: Path) -> None:
    status = fabricate(tmp_path)
    write_search(Layout(tmp_path, 0, 0))
    report = read(tmp_path, RUN, status)
    assert [one.state for one in report.generations[0].stages] == ["done", "done", "done", "to come"]
    assert "2 of 4 answers passed" in Page(render(report)).text
    assert (report.seconds, report.tokens) == (225.0, 900), "what is done counts, though no generation has a result"


def test_a_big_run_stays_small_and_says_what_is_left_out(tmp_path: Path) -> None:
    status = fabricate(tmp_path, BETTER, WORSE)
    write_search(Layout(tmp_path, 0, 0), problems=50, says="long " * (TEXT_SHOWN // 5 + 20))
    report = read(tmp_path, RUN, status)
    search = report.generations[0].search
    assert search is not None
    assert len(search.shown) == max(LEAST_SHOWN, TREES_SHOWN // 2)
    assert sum(any(map(bool, one.outcome or ())) for one in search.shown) == len(search.shown)
    solved = sum(1 for one in search.shown if one.outcome and one.outcome[0])
    assert solved == len(search.shown) // 2, "as many solved problems as others"
    html = render(report)
    assert len(html) < 3_000_000
    text = Page(html).text
    assert "20 trees are shown, 30 are left out" in text
    assert "40 of 200 are shown" in text
    assert "more characters)" in text
    assert "long " * (TEXT_SHOWN // 5 + 1) not in text


def test_of_a_big_tree_the_paths_that_became_plans_are_always_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "NODES_SHOWN", 4)
    status = fabricate(tmp_path, BETTER)
    write_search(Layout(tmp_path, 0, 0))
    search = read(tmp_path, RUN, status).generations[0].search
    assert search is not None
    for one in search.shown:
        assert (one.nodes, one.shown) == (8, 4)
        assert [child.children[0].outcome for child in one.root.children] != [None, None]
    assert "4 steps are left out" in Page(render(read(tmp_path, RUN, status))).text


def test_a_generation_that_looked_for_no_plans_says_so_and_shows_no_trees(tmp_path: Path) -> None:
    status = fabricate(tmp_path, BETTER)
    write_search(Layout(tmp_path, 0, 0))
    file = Layout(tmp_path, 0, 0).stage("synthesize") / TREES
    roots = [
        one.model_copy(update={"tree": Tree("Write it.").to_dict(), "stop_reason": "complete", "paths": ()})
        for one in read_jsonl(file, TreeRecord)
    ]
    write_jsonl(file, roots)
    text = Page(render(read(tmp_path, RUN, status))).text
    assert f"answers were sampled for each of the {PROBLEMS} problems alone" in text
    assert "stopped by complete" not in text


TEXT_ON = {
    "page": ("ink", "soft", "accent", "good", "bad", "unsure"),
    "card": ("ink", "soft", "accent", "good", "bad", "unsure"),
    "wash": ("ink", "good", "bad", "unsure"),
    "mark": ("ink", "soft", "good", "bad", "unsure"),
    "accent": ("card",),
}
"""Which colours stand on which: chips and code are on the wash, a step that a link leads to on the mark."""


@pytest.mark.parametrize("place", range(4), ids=["light", "dark by the system", "dark by choice", "paper"])
def test_text_stands_out_from_what_it_stands_on_in_every_theme(place: int) -> None:
    style = (TEMPLATES / "style.css").read_text()
    blocks = [dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", block)) for block in re.findall(r"\{([^{}]*)\}", style)]
    themes = [block for block in blocks if "ink" in block]
    assert len(themes) == 4
    theme = {**themes[0], **themes[place]}  # what paper does not say stays
    faint = {
        f"{text} on {under}": round(contrast(theme[text], theme[under]), 2)
        for under, texts in TEXT_ON.items()
        for text in texts
        if contrast(theme[text], theme[under]) < 4.5
    }
    assert faint == {}, "WCAG 2.2 (1.4.3) wants 4.5"


def contrast(first: str, second: str) -> float:
    """WCAG's contrast ratio, 1 to 21."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        shares = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_a_broken_file_is_named_with_its_line(tmp_path: Path) -> None:
    status = fabricate(tmp_path, BETTER)
    write_search(Layout(tmp_path, 0, 0))
    path = Layout(tmp_path, 0, 0).stage("convert") / "candidates.jsonl"
    path.write_text(path.read_text() + '{"id": 3}\n')
    with pytest.raises(DataError, match=re.escape(f"{path}:{4 * PROBLEMS + 1} cannot be read: ")):
        read(tmp_path, RUN, status)


def test_losses_of_different_kinds_have_plots_of_their_own(tmp_path: Path) -> None:
    status = fabricate(tmp_path, BETTER)
    layout = Layout(tmp_path, 0, 0)
    write_manifest(layout.stage("finetune") / "model", steps=1)
    write_manifest(layout.stage("mentor-supervised") / "model")
    html = render(read(tmp_path, BOTH, status))
    assert html.count('aria-label="training loss, nats per answer token"') == 1
    assert html.count('<g class="line line-') == 2


def test_what_a_judge_says_of_two_models_and_what_each_stage_changed_is_on_the_page(tmp_path: Path) -> None:
    status = fabricate(tmp_path, BETTER)
    layout = Layout(tmp_path, 0, 0)
    write_meteor(layout)
    result = parse_result(layout.result.read_bytes())
    assert result.dev is not None
    assert result.dev.gain is not None
    win = WinRate(
        set="dev",
        criterion="accuracy",
        questions=8,
        unjudged=1,
        won=0.5,
        tied=0.25,
        lost=0.25,
        win_rate=0.625,
        low=0.5,
        high=0.75,
    )
    judged = MeanScore(set="dev", model="candidate", mean=6.5, low=6.0, high=7.0, scored=8, unscored=1)
    stage = StageScore(stage="self-assessment", model_id="m", score=result.dev.parent, gain=result.dev.gain)
    told = replace(result, wins=[win], judged=[judged], lineage=[stage])
    layout.result.write_text(told.model_dump_json(by_alias=True))
    page = Page(render(read(tmp_path, BOTH, status)))
    for said in (
        "50 / 25 / 25 %",
        "62.5 % [50.0, 75.0]",
        "+ 1 unjudged",
        "6.50 [6.00, 7.00] of 10",
        "+43.8 [+42.8, +44.8]",
    ):
        assert said in page.text, said


def test_every_figure_with_an_interval_is_written_as_one(tmp_path: Path) -> None:
    status = fabricate(tmp_path, BETTER, WORSE)
    write_search(Layout(tmp_path, 0, 0))
    write_meteor(Layout(tmp_path, 0, 0))
    run = replace(RUN, spec=replace(RUN.spec, methods=["sra-mcts", "meteor"]))
    text = Page(render(read(tmp_path, run, status))).text
    assert "value=" not in text
    assert "0.53 [0.23, 0.77]" in text


def test_of_many_generations_the_work_is_summed_and_its_stages_are_folded_away(tmp_path: Path) -> None:
    run = replace(RUN, spec=replace(RUN.spec, generations=replace(RUN.spec.generations, max=6, patience=6)))
    status = fabricate(tmp_path, *[WORSE] * 5, run=run)
    write_search(Layout(tmp_path, 3, 0))
    report = read(tmp_path, run, status)
    assert [one.usage.calls for one in report.generations] == [0, 0, 0, 36, 0, 0]
    page = render(report)
    assert "<summary>By stage</summary>" in page
    assert "<summary>By stage</summary>" not in render(read(tmp_path, RUN, fabricate(tmp_path / "few", BETTER)))
