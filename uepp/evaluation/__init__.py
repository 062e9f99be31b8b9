"""Recall of a run and of its opponents, on the same requests."""
