"""Training: one loop for every model, schedules over two of them, and the engine underneath."""
