"""Text to token ids, the resident catalogue, and batches of ids."""
