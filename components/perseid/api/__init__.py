"""The contract: EvolutionRun's spec and status, and the files that stages hand over. It imports nothing of ours."""
