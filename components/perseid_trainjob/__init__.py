"""Runs a stage on several nodes: a TrainJob of Kubeflow Trainer is made, watched and cleared away, from a pod without a
GPU. What the nodes do is `perseid.stages.nodes`. This is the one part of the data plane that knows Kubernetes.
"""
