"""Negatives, losses, optimisers and the training loop."""
