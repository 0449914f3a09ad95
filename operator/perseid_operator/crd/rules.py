"""Rules that no schema can say, in CEL: one twin for every validator of the spec's models.

The table is keyed by the model and the name of its validator; a test fails where one has no twin. The API server's
answer says the same as `perseid validate`, with the field's path in front of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from perseid.api.engine import EMBEDDED_MODEL, ModelSpec
from perseid.api.meteor import JudgeSpec, MentorSpec, MeteorSpec, QuestionSet, SelfEvolutionSpec
from perseid.api.pipeline import TolerationSpec
from perseid.api.problems import ProblemSet
from perseid.api.search import BlendWeights
from perseid.api.spec import EvolutionRunSpec
from perseid.api.stages import ENGINELESS_STAGES, STAGES, module_of
from perseid.api.training import EvaluationSpec
from perseid_operator.crd.schema import Schema, cel_text

Cause = Literal["FieldValueInvalid", "FieldValueRequired", "FieldValueForbidden"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition that an object must meet."""

    expression: str
    """CEL over `self`, and `oldSelf` where it is about a change."""
    message: str
    """What is wrong and what to do."""
    field: str | None = None
    """The field of the object that is to blame."""
    cause: Cause = "FieldValueInvalid"
    """The kind of error; it begins the API server's answer."""
    computed: bool = False
    """Whether the message is a CEL expression itself."""

    def as_schema(self) -> Schema:
        """The entry of `x-kubernetes-validations`."""
        entry: Schema = {"rule": self.expression, "messageExpression" if self.computed else "message": self.message}
        if self.field is not None:
            entry["fieldPath"] = f".{self.field}"
        if self.cause != "FieldValueInvalid":
            entry["reason"] = self.cause
        return entry


def _needs(field_of: Mapping[str, str]) -> tuple[Rule, ...]:
    """For each type the field without which it is nothing."""
    return tuple(
        Rule(
            f"self.type != {cel_text(kind)} || has(self.{field})",
            f"type {kind} needs the field {field}",
            field,
            "FieldValueRequired",
        )
        for kind, field in field_of.items()
    )


_SEARCHES = "(self.cheap == 'search' || 'search' in self.expensive)"
_ENGINE_GPUS = ", ".join(
    f"self.pipeline.stages.{to_camel(module_of(stage))}.gpus" for stage in STAGES if stage not in ENGINELESS_STAGES
)
_WEIGHTS = "self.search.evaluator.weights"

TWINS: Mapping[tuple[type[BaseModel], str], tuple[Rule, ...]] = {
    (ModelSpec, "_one_origin"): (
        Rule(
            f"!has(self.evolutionRun) || (self.ref == {cel_text(EMBEDDED_MODEL)} && !has(self.revision))",
            "evolutionRun and ref (or revision) both name a model: keep one of them",
            "evolutionRun",
        ),
    ),
    (EvolutionRunSpec, "_no_run_outlives_its_files"): (
        Rule(
            "self.deletePolicy != 'orphan' || self.reclaimPolicy != 'delete'",
            "deletePolicy orphan lets a pipeline run go on whose files reclaimPolicy delete deletes; set one of"
            " them to its default",
            "reclaimPolicy",
        ),
    ),
    (ProblemSet, "_source_has_what_it_needs"): (
        Rule(
            "!(self.source in ['jsonl', 'mbpp', 'hub']) || has(self.path)",
            "'source ' + self.source + ' needs the field path'",
            "path",
            "FieldValueRequired",
            computed=True,
        ),
        Rule(
            "!(self.source in ['pack', 'humaneval']) || !has(self.path)",
            "'source ' + self.source + ' takes no path: remove it, or set source to jsonl, mbpp or hub'",
            "path",
            "FieldValueForbidden",
            computed=True,
        ),
        Rule(
            "self.source != 'pack' || (has(self.split) && self.split in ['train', 'dev', 'test'])",
            "source pack needs the field split: train, dev or test",
            "split",
        ),
        Rule(
            "self.source != 'hub' || has(self.split)", "source hub needs the field split", "split", "FieldValueRequired"
        ),
    ),
    (MentorSpec, "_type_has_what_it_needs"): _needs({"openai": "openai", "model": "ref", "recorded": "path"}),
    (JudgeSpec, "_type_has_what_it_needs"): _needs({"openai": "openai", "model": "ref", "recorded": "path"}),
    (MeteorSpec, "_one_currency"): (
        Rule(
            "self.mentor.price.currency == self.judge.price.currency",
            "'mentor.price is in ' + self.mentor.price.currency + ' and judge.price in ' + self.judge.price.currency"
            " + ': one budget needs one currency'",
            computed=True,
        ),
    ),
    (QuestionSet, "_source_has_what_it_needs"): (
        Rule(
            "self.source == 'pack' || has(self.path)",
            "'source ' + self.source + ' needs the field path'",
            "path",
            "FieldValueRequired",
            computed=True,
        ),
        Rule("self.source != 'pack' || !has(self.path)", "source pack takes no path", "path", "FieldValueForbidden"),
        Rule(
            "self.source == 'hub' || !has(self.config)",
            "config is for source hub: remove it",
            "config",
            "FieldValueForbidden",
        ),
        Rule(
            "self.source != 'pack' || (has(self.split) && self.split in ['train', 'dev', 'test'])",
            "source pack needs the field split: train, dev or test",
            "split",
        ),
    ),
    (SelfEvolutionSpec, "_decodings_differ"): (
        Rule(
            "!(self.cheap in self.expensive)",
            "'cheap and expensive are both ' + self.cheap + ', so that there is nothing to learn; set expensive to"
            " [best-of-n], for example'",
            "expensive",
            computed=True,
        ),
        Rule(
            "self.expensive.all(one, self.expensive.exists_one(other, other == one))",
            "expensive names a decoding twice: name it once",
            "expensive",
        ),
    ),
    (SelfEvolutionSpec, "_search_can_be_judged"): (
        Rule(
            f"!{_SEARCHES} || self.critique == 'self-verdict'",
            "the decoding search needs critique self-verdict: how likely its answer is after the steps that were found"
            " does not compare with an answer without them",
            "critique",
        ),
        Rule(
            f"!{_SEARCHES} || self.search.algorithm != 'direct'",
            "search.algorithm is direct, which searches for nothing: choose mcts, tot or cot",
            "search",
        ),
        Rule(
            f"!{_SEARCHES} || !has(self.search.evaluator) || (self.search.evaluator.type == 'blend' ?"
            f" {_WEIGHTS}.ladder > 0.0 || {_WEIGHTS}.likelihood > 0.0 : self.search.evaluator.type != 'execution')",
            "search.evaluator goes by execution alone, but a question has no tests; set it to {type: likelihood}",
            "search",
        ),
    ),
    (BlendWeights, "_something_counts"): (
        Rule(
            "self.ladder > 0.0 || self.likelihood > 0.0 || self.execution > 0.0", "at least one weight must be above 0"
        ),
    ),
    (EvolutionRunSpec, "_shards_have_a_search"): (
        Rule(
            "self.pipeline.shards == 1 || 'sra-mcts' in self.methods",
            "only the search of method sra-mcts is done in shards: set pipeline.shards to 1 or add the method",
            "pipeline",
        ),
    ),
    (EvolutionRunSpec, "_nodes_have_what_they_need"): (
        Rule(
            "!has(self.pipeline.trainJob) || 'sra-mcts' in self.methods || self.meteor.stages.exists(one, one in"
            " ['mentor-supervised', 'self-assessment'])",
            "pipeline.trainJob has nothing to do: no stage of this run learns from answers (finetune,"
            " mentor-supervised, self-assessment); remove it, or add a method or stage that does",
            "pipeline",
        ),
        Rule(
            "!has(self.pipeline.trainJob) || !has(self.storage.uri) || (self.storage.uri.contains('://') &&"
            " !self.storage.uri.startsWith('file://'))",
            "the nodes of pipeline.trainJob meet in object storage, but storage.uri is a directory: set it to"
            " s3://bucket/prefix, or remove trainJob",
            "storage",
        ),
        Rule(
            "!has(self.pipeline.trainJob) || self.finetune.batchSize >= self.pipeline.trainJob.numNodes",
            "finetune.batchSize is below pipeline.trainJob.numNodes, so that some nodes would learn from nothing: raise"
            " it, or lower numNodes",
            "pipeline",
        ),
    ),
    (EvolutionRunSpec, "_gpus_hold_the_engine"): (
        Rule(
            f"self.engine.type != 'vllm' || [{_ENGINE_GPUS}].all(gpus, gpus == 0 || gpus >="
            " self.engine.vllm.tensorParallelSize * self.engine.vllm.dataParallelSize)",
            "a stage has fewer GPUs than engine.vllm takes (tensorParallelSize times dataParallelSize): raise its gpus"
            " in pipeline.stages, or lower those",
            "pipeline",
        ),
    ),
    (TolerationSpec, "_as_kubernetes_takes_it"): (
        Rule(
            "has(self.key) || self.operator == 'Exists'",
            "a toleration without a key bears every taint: set operator to Exists, or name the key",
            "operator",
        ),
        Rule(
            "self.operator != 'Exists' || !has(self.value) || self.value == ''",
            "operator Exists takes no value: remove it, or set operator to Equal",
            "value",
            "FieldValueForbidden",
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds is for the effect NoExecute: remove it, or set that effect",
            "tolerationSeconds",
        ),
    ),
    (EvaluationSpec, "_k_fits_n"): (
        Rule(
            "self.k.all(k, k <= self.samples)",
            "pass@k needs at least k samples: raise evaluation.samples, or remove every k above it",
            "k",
        ),
    ),
}
