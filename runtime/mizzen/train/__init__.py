"""Elastic, fault-tolerant training on Ray: the driver in the head pod, the loop in the workers."""
