"""SavedModels, vectors and the index: what a run exports."""
