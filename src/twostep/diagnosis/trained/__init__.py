"""Models trained for a diagnosis."""
