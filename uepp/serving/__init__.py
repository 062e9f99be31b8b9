"""Search over an export."""
