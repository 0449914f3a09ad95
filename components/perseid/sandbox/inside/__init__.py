"""The half of the sandbox that runs inside the fork server: standard library only, and nothing else of Perseid.

The server starts this package by path, in an interpreter without site-packages, so that a fork of it is small and
nothing that it holds is worth stealing. See `perseid.sandbox` for what each layer guarantees.
"""
