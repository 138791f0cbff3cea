"""Processes: one that forks the others anew, and the confinement of those that read what others send.

How it is used::

    supervise(ProcessRole("authority", main), {"edge": ProcessRole("edge", main, confinement, listen), …}) -> status

``main(context) -> int`` runs in the fork: ``context.links`` are its two sockets to the authority, and
``context.listeners`` those that ``listen(name)`` made in the supervisor. The authority has one link, to that::

    supervision = Supervision(context.links[0], started=linked, ended=gone, stop=stop.set, reload=asked.set)
    worker = await supervision.start("edge")  # named edge, then edge.2; ``linked(worker)`` has its ``links``, also when
    await supervision.kill(worker)  # it is started again, as it is after each death; ``again=False``: for good
    supervision.ready()  # it serves: from now on it is started anew when it crashes
    (await supervision.state()).processes, .lacks  # for status and the doctor

What ``main`` of the authority returns ends the supervisor, and all; what it raises or is killed by has it started anew,
after all workers are dead. A worker sees ``Confinement(readable, covered, unix)``, for which ``files.system()`` and
``files.python()`` are what it needs to run. ``survey()`` says what this kernel lacks, ``descends(pid, supervisor)`` who
is a process of ours.

Invariant: the supervisor has no secret, no thread and no loop; children share its memory as it was. What is secret is
read or drawn after the fork.
"""
