"""Triton kernels, one folder each: op.py (kernel, entry point), reference.py, benchmark.py; tests in tests/kernels."""
