"""The brain of a run: a pure function from what is wanted, remembered and seen to what is to be done next.

Whoever drives a run (the program's word here is a *body*) calls `decide`, **writes the plan's status first and then
carries out its action**, observes, and calls `decide` again. The order matters: an action that was written down but not
carried out is planned again after a crash; one that was carried out but not written down would be lost.

`Submit` is to be carried out as look-then-create: where a run of that id exists already, it is adopted. A run that was
created under doubt (a time-out, a reset connection) is reported as `Unknown` until it shows up, or until it is certain
that it never will; then as `Missing`, and it is submitted again.
"""

from perseid.decide.attempts import SUBMIT_SECONDS
from perseid.decide.core import CleanUp, clean_up, decide
from perseid.decide.identity import run_id_of
from perseid.decide.observed import Observed, ObservedRun, PipelineState, RunState, StageTime, StartModel
from perseid.decide.plan import Action, DeleteObject, Plan, Submit, Terminate

__all__ = [
    "SUBMIT_SECONDS",
    "Action",
    "CleanUp",
    "DeleteObject",
    "Observed",
    "ObservedRun",
    "PipelineState",
    "Plan",
    "RunState",
    "StageTime",
    "StartModel",
    "Submit",
    "Terminate",
    "clean_up",
    "decide",
    "run_id_of",
]
