"""Relevance of a product to a query, judged pair by pair: BHNS (arXiv 2311.06444)."""
