"""Compiles pipelines for whoever must not import KFP: settings in, intermediate representations out, a line each.

Reads `GenerationTemplate`s as JSON lines from standard input; answers each with `{"pipeline": ..., "platform": ...}`
(the second is null where there is no part for Kubernetes) or `{"error": ...}`. Ends with its input or its starter.
"""

import json
import sys
from typing import Any

from perseid.api.pipeline import GenerationTemplate
from perseid.processes import die_with_starter


def main() -> None:
    """Serve until the input ends."""
    die_with_starter()
    # After that: it takes seconds, in which a starter can die and be followed by the next.
    from perseid.pipelines.generation import compile_template

    answers = sys.stdout
    sys.stdout = sys.stderr  # what KFP prints is no answer
    for line in sys.stdin:
        answer: dict[str, Any]
        try:
            pipeline, platform = compile_template(GenerationTemplate.model_validate_json(line))
            answer = {"pipeline": pipeline, "platform": platform}
        except Exception as error:  # noqa: BLE001  # whatever a spec does to KFP must not end the service
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer, sort_keys=True, separators=(",", ":")) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
