"""What is asked of finished runs: each file is named as its command."""
