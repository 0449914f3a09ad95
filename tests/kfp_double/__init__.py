"""A double of Kubeflow Pipelines' API server that is as nasty as the real one.

What it does wrong, the real one did when it was measured (KFP 2.17.0 with Argo 4.0): it makes the Workflow before it
stores the run, takes a second creation under one id for a second Workflow, leaves runs RUNNING whose Workflow has
gone, ends terminated runs as FAILED, lets terminal states go back, answers users' mistakes with 500. The tests in
tests/operator/kfp/test_kfp_double_behaviour.py list all of it.

`double.py` is what tests use in their own event loop; `python tests/kfp_double --help` is the same as a process.
"""

from kfp_double.clock import Clock, RealClock, VirtualClock
from kfp_double.double import KfpDouble
from kfp_double.parts import Script

__all__ = ["Clock", "KfpDouble", "RealClock", "Script", "VirtualClock"]
