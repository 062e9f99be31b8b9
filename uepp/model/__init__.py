"""Tables of embeddings, encoders and the two towers."""
