"""A run's progress that outlives its processes: snapshots in shared memory, and durable checkpoints written from them.

snapshots.py copies a Trainee into slots.py's files in memory; persister.py hands them to a process (writer.py) that
writes parts.py's safetensors files into a store.py; restore.py finds the newest whole of both, for any number of ranks.
The writing process imports no torch, so nothing is imported here.
"""
