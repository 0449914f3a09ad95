"""Engines: what runs a model. Start from `open_engine` and `resolve_model`; `protocol` is the contract.

Nothing here is imported before it is needed: PyTorch and vLLM take seconds.
"""
