"""Mizzen's operator: observe the cluster, plan with pure functions, apply what was planned."""
