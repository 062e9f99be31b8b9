"""Token table, encoders and the two towers."""
