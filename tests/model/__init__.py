"""A model and a machine: whatever several projects do, each sees what the model says."""
