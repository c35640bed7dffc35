"""Builders: one module makes one kind of child, from typed values to a manifest."""
