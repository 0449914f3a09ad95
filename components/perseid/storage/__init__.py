"""Object storage: where the files of a run lie when its pods share no disk.

Stages work on a local copy in a scratch directory, and a mirror keeps the objects in step with it. `stores` opens a
storage URI (the operator too), `objects` reads and writes single objects, `index` is the commit point of a directory,
`journals` splits growing files into objects, `directories` fetches and copies, `mirror` is a stage's directory with its
one writer, `pusher` pushes while the stage runs, `stage` is all of it as a stage needs it, `models` fetches a model.
"""
