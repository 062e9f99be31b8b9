"""Text encoders: a T5 that learns to write a product's query (docT5query), and others as they come (UEPPR III-A-1).

Keras 3 and KerasHub live in this folder and in `uepp/relevance/cross_encoder.py` only. What leaves it is a directory
with a SavedModel (`encoder.py`), which needs neither.
"""
