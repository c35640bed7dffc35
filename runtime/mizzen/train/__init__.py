"""Elastic, fault-tolerant training: the SDK, the driver in the head pod, the loop in the workers."""

from mizzen.train.sdk import DistributedTrainer, TrainingResult

__all__ = ["DistributedTrainer", "TrainingResult"]
