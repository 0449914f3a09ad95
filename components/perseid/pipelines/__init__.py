"""The Kubeflow pipelines: a generation as a DAG of stages, compiled from a spec.

One pipeline is one attempt at one generation. KFP v2 has no loops, so generations are driven from outside. Image,
resources, node selectors and labels cannot be run-time parameters in KFP: the pipeline is compiled for each spec.
"""
