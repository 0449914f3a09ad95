"""The search for plans: a tree of natural-language steps, grown by a policy and scored by an evaluator.

`build_search` turns a `SearchSpec` and engines into a `Search`; `grow_forest` runs it over many problems at once. The
room talks to models through `perseid.engines.protocol` alone and never executes code itself.
"""
