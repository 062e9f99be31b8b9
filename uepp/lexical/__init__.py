"""Lexical retrieval: BM25 as opponent, teacher and partner of the embeddings."""
