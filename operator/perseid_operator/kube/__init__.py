"""What the operator asks of Kubernetes, behind a small protocol."""
