"""The laptop's body around `decide`: it shows it what runs here, and carries out what it says with kfp.local.

`directory` keeps a run's files, `backend` starts and watches pipeline runs as processes, `worker` is such a process,
`loop` goes round.
"""
