"""The shipped configurations (YAML), installed as package data of uepp."""
