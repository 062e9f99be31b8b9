"""Data sets: the contract, public adapters, the marketplace simulator and the mining of examples."""
