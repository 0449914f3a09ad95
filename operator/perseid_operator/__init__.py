"""The control plane: watches EvolutionRuns in Kubernetes and drives Kubeflow Pipelines, generation after generation."""
