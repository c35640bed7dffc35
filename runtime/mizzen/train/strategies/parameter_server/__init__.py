"""A parameter server: weights and optimizer on Ray actors, workers that pull, compute and push at their own pace.

ledger.py       who works on what, and how stale it may be: pure    chunks.py    the cut of a model among servers
shard.py        one server's weights and updates, without Ray       server.py    the actor around it
coordinator.py  the actor that workers ask; keeps checkpoints       whole.py     the run as checkpoints know it
client.py       a worker's side of all that                         strategy.py  the loop's Strategy on top of it
work.py         what a member of the group does                     run.py       the driver's side
"""
