"""Readers of files: arrays, tables, folders of images, the hub, and the cache."""
