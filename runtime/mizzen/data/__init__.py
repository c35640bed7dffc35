"""From raw files to a fingerprinted, immutable dataset version, and back to tensors."""
