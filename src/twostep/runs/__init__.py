"""What a run is: its configs, its directory, its environment."""
