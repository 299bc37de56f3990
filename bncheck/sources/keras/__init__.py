"""Keras files: archives and HDF5."""
