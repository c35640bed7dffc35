"""The elastic worker group: processes on Ray nodes that train together, and go on when some of them come or go.

controller.py decides, as a pure state machine over messages.py. nodes.py starts members on Ray's nodes and carries
messages. member.py is such a process: work.py (or function.py, the user's own) trains in a process group of
process_group.py, and handover.py copies the state from the rank that is furthest.
"""
