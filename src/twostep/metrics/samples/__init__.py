"""Samples compared with data: Fréchet and kernel distances, PRDC, memorisation, classifier tests."""
