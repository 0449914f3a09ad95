"""How lists of objects are merged by `kubectl apply --server-side`, decided for each kind of item.

Named keys: one entry for each key, entries of several writers are merged. No keys: the list is one value and is
replaced as a whole. Lists of texts and numbers are always one value: their order means something, and a set would
refuse repetitions that the models allow.
"""

from __future__ import annotations

from collections.abc import Mapping

ITEM_KEYS: Mapping[str, tuple[str, ...]] = {
    # Problem sets may have no name, and two may have the same source: nothing tells them apart.
    "perseid.api.problems.ProblemSet": (),
    "perseid.api.meteor.QuestionSet": (),
    # The first rule that matches decides: order is everything.
    "perseid.api.lifecycle.FailureRule": (),
    # As in a pod: of two values of one name the last one counts.
    "perseid.api.pipeline.EnvSpec": (),
    "perseid.api.pipeline.SecretEnvSpec": (),
    # A toleration has no name, and a Secret named twice does no harm.
    "perseid.api.pipeline.TolerationSpec": (),
    "perseid.api.pipeline.ImagePullSecretSpec": (),
    "perseid.api.status.Condition": ("type",),
    # One writer, which replaces all of them. By keys, the fields of each would stand in metadata.managedFields again.
    "perseid.api.status.GenerationStatus": (),
    "perseid.api.status.AttemptStatus": (),
}
