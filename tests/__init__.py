"""All tests. A package, so that no other of the name can hide it."""
