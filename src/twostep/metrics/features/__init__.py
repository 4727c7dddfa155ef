"""Features of images in which samples and data are compared."""
