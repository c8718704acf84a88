"""Measurements of graphs on real devices. Depends on `costmodel` and is imported by the command line only."""
