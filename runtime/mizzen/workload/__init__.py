"""What every workload pod does besides its work: read its configuration, tell its progress, end with an outcome."""
