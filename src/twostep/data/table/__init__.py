"""Tables as people have them: files and frames to coded rows with their columns, and back."""
