"""Perseid: one YAML file makes a language model better, generation after generation."""

__version__ = "0.1.0.dev0"
