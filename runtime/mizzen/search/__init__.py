"""Search over architectures and training settings: many short trainings on Ray, each a little wiser than the last."""
