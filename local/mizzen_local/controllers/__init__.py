"""The controllers of the embedded cluster: just those that the platform's chart needs."""
