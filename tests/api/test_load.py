import contextlib
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perseid.api.errors import Problem, RunFileError
from perseid.api.explain import describe
from perseid.api.load import dump_run, load_run
from perseid.api.spec import EvolutionRun, EvolutionRunSpec

HEAD = "apiVersion: perseid.dev/v1alpha1\nkind: EvolutionRun\nmetadata:\n  name: quick\n"


def problems_of(directory: Path, text: str | bytes) -> tuple[Problem, ...]:
    file = directory / "run.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(RunFileError) as caught:
        load_run(file)
    return caught.value.problems


def load_spec(directory: Path, body: str) -> EvolutionRunSpec:
    file = directory / "run.yaml"
    file.write_text(HEAD + "spec:\n" + body)
    return load_run(file).spec


# Lines count from 1, and the spec's first line is line 6.
SPEC_MISTAKES = [
    # unknown fields
    ("  sede: 1", 6, 3, "spec.sede", "there is no field sede here", "Did you mean seed?"),
    ("  finetune:\n    rank: 3", 7, 5, "spec.finetune.rank", "no field rank", "rank belongs to spec.finetune.lora."),
    ("  finetune:\n    lora:\n      rnak: 3", 8, 7, "spec.finetune.lora.rnak", "no field rnak", "Did you mean rank?"),
    ("  patience: 3", 6, 3, "spec.patience", "no field patience", "patience belongs to spec.generations."),
    (
        "  conversion:\n    sampling: {max_tokens: 3}",
        7,
        16,
        "spec.conversion.sampling.max_tokens",
        "no field max_tokens",
        "Did you mean maxTokens?",
    ),
    ("  engine:\n    foo: 1", 7, 5, "spec.engine.foo", "no field foo", "Its fields: type, vllm, transformers."),
    ("  engine:\n    revsion: 1", 7, 5, "spec.engine.revsion", "no field", "Did you mean revision of spec.model?"),
    (
        "  problems:\n    test:\n      - {split: test, tset: 1}",
        8,
        23,
        "spec.problems.test[0].tset",
        "no field tset",
        "Its fields: name, source, path, split, limit, levels.",
    ),
    # kinds of values
    ("  seed: ten", 6, 9, "spec.seed", "expected a whole number, got the text 'ten'", ""),
    ('  seed: "10"', 6, 9, "spec.seed", "expected a whole number, got the text '10'", "Remove the quotes: 10."),
    ("  seed: 10.0", 6, 9, "spec.seed", "expected a whole number, got the number 10.0", "Write 10."),
    ("  seed: 1.5", 6, 9, "spec.seed", "expected a whole number, got the number 1.5", ""),
    ("  seed: true", 6, 9, "spec.seed", "expected a whole number, got true", ""),
    ("  seed: no", 6, 9, "spec.seed", "expected a whole number, got the text 'no'", ""),
    ("  seed: 1:30", 6, 9, "spec.seed", "expected a whole number, got the text '1:30'", ""),
    ("  seed: 2024-01-01", 6, 9, "spec.seed", "expected a whole number, got the text '2024-01-01'", ""),
    ("  seed: [1]", 6, 3, "spec.seed", "expected a whole number, got a list", ""),
    ("  seed:", 6, 3, "spec.seed", "the field is empty, expected a whole number", "or remove the line"),
    ("  engine:", 6, 3, "spec.engine", "the field is empty, expected a mapping of fields", "Indent its fields under"),
    ("  engine: vllm", 6, 11, "spec.engine", "a mapping of fields, got the text 'vllm'", "Its fields: type, vllm"),
    ('  suspend: "true"', 6, 12, "spec.suspend", "expected true or false, got the text", "Remove the quotes: true."),
    ("  suspend: 1", 6, 12, "spec.suspend", "expected true or false, got the number 1", ""),
    ("  model:\n    ref: true", 7, 10, "spec.model.ref", "expected a text, got true", 'Put it in quotes: "true".'),
    ("  model:\n    revision: 1234567", 7, 15, "spec.model.revision", "expected a text", 'in quotes: "1234567".'),
    ("  evaluation:\n    k: 1", 7, 8, "spec.evaluation.k", "expected a list, got the number 1", "as a list: [1]."),
    ("  problems:\n    test: {source: humaneval}", 7, 5, "spec.problems.test", "expected a list, got a mapping", ""),
    (
        '  finetune:\n    learningRate: "3e-4"',
        7,
        19,
        "spec.finetune.learningRate",
        "expected a number, got the text '3e-4'",
        "Remove the quotes: 3e-4.",
    ),
    (
        "  pipeline:\n    stages:\n      convert:\n        nodeSelector: {zone: 1}",
        9,
        30,
        "spec.pipeline.stages.convert.nodeSelector.zone",
        "expected a text, got the number 1",
        'Put it in quotes: "1".',
    ),
    # choices
    (
        "  synthesis:\n    search:\n      algorithm: mtcs",
        8,
        18,
        "spec.synthesis.search.algorithm",
        "expected one of mcts, tot, cot or direct, got the text 'mtcs'",
        "Did you mean mcts?",
    ),
    (
        "  generations: {promotion: {rule: intervall}}",
        6,
        35,
        "spec.generations.promotion.rule",
        "expected interval or improvement, got the text 'intervall'",
        "Did you mean interval?",
    ),
    ("  model:\n    dtype: FP32", 7, 12, "spec.model.dtype", "one of auto, float32, bfloat16 or float16", ""),
    (
        "  engine: {vllm: {blockSize: 24}}",
        6,
        30,
        "spec.engine.vllm.blockSize",
        "auto, 8, 16, 32, 64 or 128, got the n",
        "",
    ),
    ('  engine: {vllm: {blockSize: "16"}}', 6, 30, "spec.engine.vllm.blockSize", "got the text", "the quotes: 16."),
    (
        "  engine:\n    vllm: {enforceEager: atuo}",
        7,
        26,
        "spec.engine.vllm.enforceEager",
        "expected one of auto, true or false, got the text 'atuo'",
        "Did you mean auto?",
    ),
    (
        "  finetune:\n    lora:\n      targetModules: all-liner",
        8,
        22,
        "spec.finetune.lora.targetModules",
        "expected all-linear or a list, got the text 'all-liner'",
        "Did you mean all-linear?",
    ),
    ("  finetune:\n    lora: {targetModules: []}", 7, 12, "spec.finetune.lora.targetModules", "at least 1 item", ""),
    (
        "  finetune:\n    lora: {targetModules: [q_proj, 3]}",
        7,
        36,
        "spec.finetune.lora.targetModules[1]",
        "expected a text, got the number 3",
        'Put it in quotes: "3".',
    ),
    # bounds and forms
    (
        "  synthesis: {search: {branch: 99}}",
        6,
        32,
        "spec.synthesis.search.branch",
        "at least 1 and at most 32, got 99",
        "",
    ),
    ("  seed: 99999999999", 6, 9, "spec.seed", "must be at least 0 and below 2147483648, got 99999999999", ""),
    ("  finetune: {epochs: 0}", 6, 22, "spec.finetune.epochs", "must be above 0 and at most 1000, got 0", ""),
    ("  evaluation:\n    k: [0]", 7, 9, "spec.evaluation.k[0]", "must be at least 1 and at most 1024, got 0", ""),
    ('  model:\n    ref: ""', 7, 10, "spec.model.ref", "must not be empty", "A hub id (`org/name`)"),
    (
        "  pipeline: {stages: {convert: {memory: 64GB}}}",
        6,
        41,
        "spec.pipeline.stages.convert.memory",
        "the text '64GB' does not have the right form",
        "for example `64Gi`",
    ),
    # fields that need each other
    (
        "  synthesis:\n    policyEndpoint:\n      model: x",
        7,
        5,
        "spec.synthesis.policyEndpoint.baseUrl",
        "the field is missing",
        "For example `http://localhost:8000/v1`.",
    ),
    ("  problems:\n    test:\n    - source: hub", 8, 7, "spec.problems.test[0]", "source hub needs the field path", ""),
    (
        "  evaluation:\n    k: [1, 10]",
        6,
        3,
        "spec.evaluation",
        "pass@10 needs at least 10 samples, but samples is 4",
        "",
    ),
    (
        "  methods: [meteor]\n  pipeline:\n    shards: 2",
        5,
        1,
        "spec",
        "only the search of method sra-mcts is done in shards: set pipeline.shards to 1 or add the method",
        "",
    ),
    (
        "  methods: [meteor]\n  meteor: {stages: [self-evolution]}\n  pipeline: {trainJob: {numNodes: 2}}",
        5,
        1,
        "spec",
        "pipeline.trainJob has nothing to do: no stage of this run learns from answers",
        "",
    ),
    (
        "  storage: {uri: file:///mnt/runs}\n  pipeline: {trainJob: {numNodes: 2}}",
        5,
        1,
        "spec",
        "the nodes of pipeline.trainJob meet in object storage, but storage.uri is a directory",
        "",
    ),
    (
        "  finetune: {batchSize: 3}\n  pipeline: {trainJob: {numNodes: 4}}",
        5,
        1,
        "spec",
        "finetune.batchSize is 3, so that some of the 4 nodes of pipeline.trainJob would learn from nothing",
        "",
    ),
    ("  pipeline: {trainJob: {}}", 6, 14, "spec.pipeline.trainJob.numNodes", "is missing", ""),
    (
        "  engine: {vllm: {tensorParallelSize: 4}}\n  pipeline: {stages: {selfEvolution: {gpus: 3}}}",
        5,
        1,
        "spec",
        "takes 4 GPUs (tensorParallelSize times dataParallelSize), but pipeline.stages.selfEvolution.gpus is 3",
        "",
    ),
    ("  pipeline: {shards: 0}", 6, 22, "spec.pipeline.shards", "must be at least 1 and at most 32, got 0", ""),
    # what YAML itself plays tricks with
    ("  suspend: no", 6, 12, "spec.suspend", "`no` without quotes is false to Kubernetes", "Write false."),
    ("  suspend: On", 6, 12, "spec.suspend", "`On` without quotes is true to Kubernetes", "Write true."),
    (
        "  pipeline: {stages: {finetune: {labels: {a: off}}}}",
        6,
        46,
        "spec.pipeline.stages.finetune.labels.a",
        "`off` without quotes is false to Kubernetes",
        'Write false, or "off" where the text is meant.',
    ),
    (
        "  model: {ref: yes}",
        6,
        16,
        "spec.model.ref",
        "`yes` without quotes",
        'Write true, or "yes" where the text is meant.',
    ),
    ("  seed: 010", 6, 9, "spec.seed", "`010` is an octal number to some readers", "Write 10,"),
    ("  finetune: {learningRate: .nan}", 6, 28, "spec.finetune.learningRate", "`.nan` is not a finite number", ""),
    ("  finetune: {epochs: .inf}", 6, 22, "spec.finetune.epochs", "`.inf` is not a finite number", "a plain number"),
    ("  seed: 1\n  seed: 2", 7, 3, "spec.seed", "the field is given twice", "The first is on line 6."),
    (
        "  seed: !!python/object:os.system x",
        6,
        9,
        "spec.seed",
        "the YAML tag !!python/object:os.system",
        "Remove the tag.",
    ),
    ("  model: !thing {ref: x}", 6, 10, "spec.model", "the YAML tag !thing is not supported", "Remove the tag."),
    ("  <<: 3", 6, 7, "spec", "`<<` takes a mapping", ""),
    ("  3: 4", 6, 3, "spec", "a field's name must be text, not `3`", 'Put it in quotes: "3".'),
    ("  ? [a]\n  : 4", 6, 5, "spec", "a field's name must be text, not a list or mapping", ""),
    (
        "  model: &m {ref: *m}",
        6,
        10,
        "spec.model.ref",
        "an alias refers to something that contains it",
        "Break the circle.",
    ),
]


@pytest.mark.parametrize(("body", "line", "column", "path", "message", "hint"), SPEC_MISTAKES)
def test_a_mistake_in_the_spec_says_where_what_and_how_to_mend_it(
    tmp_path: Path, body: str, line: int, column: int, path: str, message: str, hint: str
) -> None:
    problems = problems_of(tmp_path, HEAD + "spec:\n" + body + "\n")
    assert len(problems) == 1, problems
    problem = problems[0]
    assert (problem.line, problem.column, problem.path) == (line, column, path)
    assert message in problem.message
    assert hint in problem.hint


FILE_MISTAKES = [
    ("", 0, 0, "", "the file is empty", "apiVersion: perseid.dev/v1alpha1"),
    ("# only a comment\n", 0, 0, "", "the file is empty", "Start with"),
    ("---\n...\n", 0, 0, "", "the file is empty", "Start with"),
    ("- a\n", 1, 1, "", "expected a mapping with apiVersion, kind, metadata and spec, got a list", ""),
    ("hello\n", 1, 1, "", "got the text 'hello'", ""),
    ("kind: EvolutionRun\n", 1, 1, "apiVersion", "the field is missing", "Add `apiVersion: perseid.dev/v1alpha1`."),
    ("api_version: x\nkind: EvolutionRun\n", 1, 1, "apiVersion", "missing", "Rename api_version to apiVersion."),
    ("apiVersion: perseid.dev/v1\nkind: EvolutionRun\n", 1, 13, "apiVersion", "expected perseid.dev/v1alpha1", "Write"),
    (
        "apiVersion: perseid.dev/v1alpha1\nkind: Deployment\nspec: {replicas: 1}\n",
        2,
        7,
        "kind",
        "EvolutionRun, got",
        "",
    ),
    ("apiVersion: perseid.dev/v1alpha1\nkind: EvolutionRun\n", 1, 1, "metadata", "missing", "Name and labels."),
    (HEAD.replace("quick", "My_Run"), 4, 9, "metadata.name", "does not have the right form", "lower-case letters"),
    (HEAD + "status: {}\n", 5, 1, "status", "no field status", "Its fields: apiVersion, kind, metadata, spec."),
    (HEAD + "---\n" + HEAD, 6, 1, "", "the file holds 2 YAML documents", "a file of its own"),
    ("a: [1\n", 2, 1, "", "the YAML is broken", "Check brackets"),
    ("a:\n\tb: 1\n", 2, 1, "", "a tab stands where YAML needs spaces", "Indent with spaces."),
    ("a: b: c\n", 1, 5, "", "a colon stands where YAML allows none", "quotes"),
    ("a: 'x\n", 2, 1, "", "the YAML is broken", "Check brackets, quotes"),
    ("a: *x\n", 1, 4, "", "found undefined alias 'x'", "Define the anchor"),
    ("%YAML 1.1\n---\na: 1\n", 1, 1, "", "YAML directives are not supported: %YAML 1.1", "Remove the line."),
    ("a: 1\nb: \x07\n", 2, 4, "", "a control character (U+0007)", "Remove it."),
    (b"a: 1\nb: \xff\n", 2, 4, "", "the file is not UTF-8: byte 0xff", "Save it as UTF-8."),
    (b"\x7fELF\0\0", 0, 0, "", "not a text file", "YAML in UTF-8"),
    (b"#" * (1 << 20) + b"#", 0, 0, "", "bigger than 1 MiB", "settings only"),
    ("a: " + "[" * 500, 0, 0, "", "nested too deeply", ""),
]


@pytest.mark.parametrize(("text", "line", "column", "path", "message", "hint"), FILE_MISTAKES)
def test_a_file_that_is_no_run_says_why(
    tmp_path: Path, text: str | bytes, line: int, column: int, path: str, message: str, hint: str
) -> None:
    problem = problems_of(tmp_path, text)[0]
    assert (problem.line, problem.column, problem.path) == (line, column, path)
    assert message in problem.message
    assert hint in problem.hint


def test_a_file_that_does_not_exist_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="there is no such file"):
        load_run(tmp_path / "none.yaml")


def test_a_directory_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="this is a directory"):
        load_run(tmp_path)


def test_every_mistake_is_reported_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    body = (
        "spec:\n  seed: ten\n  seed: 1\n  engine:\n    tpye: vllm\n  finetune: {epochs: -1, rank: 1}\n  suspend: no\n"
    )
    problems = problems_of(tmp_path, HEAD + body)
    assert [(problem.line, problem.path) for problem in problems] == [
        (7, "spec.seed"),  # given twice: nothing more is said about its values
        (9, "spec.engine.tpye"),
        (10, "spec.finetune.epochs"),
        (10, "spec.finetune.rank"),
        (11, "spec.suspend"),
    ]


def test_the_error_reads_like_a_page(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(HEAD + "spec:\n  sede: 1\n  seed: ten\n")
    with pytest.raises(RunFileError) as caught:
        load_run(file)
    assert str(caught.value) == (
        f"{file} has 2 mistakes:\n\n"
        f"  {file}:6:3  spec.sede\n    there is no field sede here\n    Did you mean seed?\n\n"
        f"  {file}:7:9  spec.seed\n    expected a whole number, got the text 'ten'"
    )


def test_a_key_pasted_where_the_name_of_a_variable_belongs_is_not_repeated(tmp_path: Path) -> None:
    body = "spec:\n  synthesis:\n    policyEndpoint: {baseUrl: u, model: m, apiKeyEnv: sk-secret-123}\n"
    problem = problems_of(tmp_path, HEAD + body)[0]
    assert problem.path == "spec.synthesis.policyEndpoint.apiKeyEnv"
    assert "sk-secret" not in problem.message + problem.hint


def test_aliases_that_multiply_without_end_are_stopped(tmp_path: Path) -> None:
    lines = ["x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "once its aliases are followed" in problems_of(tmp_path, "\n".join(lines))[0].message


@pytest.mark.parametrize("text", ["1e-4", "3e-4", "1E-4", "0.0003", "3.0e-4"])
def test_a_learning_rate_in_scientific_notation_is_a_number(tmp_path: Path, text: str) -> None:
    assert load_spec(tmp_path, f"  finetune: {{learningRate: {text}}}\n").finetune.learning_rate == float(text)


def test_a_whole_number_is_good_where_a_fraction_is_asked(tmp_path: Path) -> None:
    assert load_spec(tmp_path, "  finetune: {epochs: 2}\n").finetune.epochs == 2.0


def test_a_date_is_taken_as_text_where_text_belongs(tmp_path: Path) -> None:
    assert load_spec(tmp_path, "  model: {revision: 2024-01-01}\n").model.revision == "2024-01-01"


def test_anchors_aliases_and_merges_work(tmp_path: Path) -> None:
    body = (
        "  conversion:\n    sampling: &s {temperature: 0.5, maxTokens: 100}\n"
        "  evaluation:\n    sampling:\n      maxTokens: 200\n      <<: *s\n"
    )
    spec = load_spec(tmp_path, body)
    assert spec.conversion.sampling.max_tokens == 100
    assert (spec.evaluation.sampling.max_tokens, spec.evaluation.sampling.temperature) == (200, 0.5)


def test_a_minimal_file_gets_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("\ufeff" + HEAD)
    assert load_run(str(file)) == EvolutionRun.model_validate({"metadata": {"name": "quick"}})


@pytest.mark.parametrize("defaults", [True, False])
def test_a_dumped_run_loads_back_the_same(tmp_path: Path, defaults: bool) -> None:
    spec = {
        "seed": 3,
        "synthesis": {"search": {"reflection": "none", "rollout": {"policy": "none"}}},
        "finetune": {"learningRate": 1e-5, "lora": {"targetModules": ["no", "1e3", "010", "a: b", "1:30", "x" * 300]}},
        "problems": {"train": {"source": "jsonl", "path": "./a.jsonl"}, "test": []},
        "pipeline": {"stages": {"finetune": {"labels": {"on": "true", "a/b": "yes"}}}},
    }
    run = EvolutionRun.model_validate({"metadata": {"name": "quick", "labels": {"x": "null"}}, "spec": spec})
    file = tmp_path / "run.yaml"
    file.write_text(dump_run(run, defaults=defaults))
    assert load_run(file) == run


def test_a_dump_without_defaults_holds_only_what_was_chosen() -> None:
    run = EvolutionRun.model_validate({"metadata": {"name": "quick"}, "spec": {"seed": 3}})
    assert dump_run(run, defaults=False) == HEAD + "spec:\n  seed: 3\n"


@given(st.text(min_size=1, max_size=200).filter(lambda text: "\0" not in text))
def test_any_text_either_loads_or_says_what_is_wrong(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(RunFileError) as caught:
        load_run(file)
    assert caught.value.problems


@settings(max_examples=60)
@given(st.integers(0, 10_000))
def test_a_file_with_a_broken_place_never_escapes_the_error_type(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    dice = random.Random(seed)
    text = HEAD + "spec:\n  seed: 1\n  model: {ref: x}\n  problems:\n    test:\n      - split: test\n  suspend: true\n"
    at = dice.randrange(len(text))
    text = (
        text[:at] + dice.choice([":", "\t", "[", "}", "'", "&a", "*a", "!x ", "\n", "no", "0", "- "]) + text[at + 1 :]
    )
    file = tmp_path_factory.getbasetemp() / "broken.yaml"
    file.write_text(text)
    with contextlib.suppress(RunFileError):
        assert load_run(file).metadata.name


def test_long_texts_are_shortened_in_messages() -> None:
    assert describe("x" * 1000) == f"the text '{'x' * 37}...'"


IN_A_NUMBERS_PLACE = ["seed: NUMBER", "engine: NUMBER", "NUMBER: 1", "conversion: {sampling: {stop: NUMBER}}"]


# Python writes and reads whole numbers of up to 4,300 digits, and raises ValueError beyond that.
@pytest.mark.parametrize("body", IN_A_NUMBERS_PLACE)
@pytest.mark.parametrize(
    "number",
    ["9" * 1000, "9" * 5000, "0" + "9" * 5000, "-0" + "7" * 5000, "0x" + "f" * 5000],
    ids=["readable", "decimal", "octal", "negative", "hexadecimal"],
)
def test_a_number_of_thousands_of_digits_is_refused_and_not_repeated(tmp_path: Path, number: str, body: str) -> None:
    problems = problems_of(tmp_path, HEAD + "spec:\n  " + body.replace("NUMBER", number) + "\n")
    assert problems
    assert all(len(problem.message) + len(problem.hint) < 800 for problem in problems)
