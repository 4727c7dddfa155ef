"""Readers of arrays, tables, folders of images and the hub, and the cache; what they can't read is a `UserError`."""
