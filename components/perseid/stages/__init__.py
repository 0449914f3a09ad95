"""The stages of a generation: each reads its inputs, calls the library, writes its outputs and a result.

`runtime` is what they share (directories, locks, progress, results), `kfp` what a pipeline component calls.
"""
