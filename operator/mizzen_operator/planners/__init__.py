"""Planners: one pure function for each kind, from what is wanted and what is observed to a Plan."""
