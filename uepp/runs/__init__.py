"""What every training needs, whatever it trains: a run directory, devices, checkpoints, signals, logs."""
