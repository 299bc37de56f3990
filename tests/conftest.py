"""Shared by all tests: this folder is on the path, so that `import bundle_writer` works in each of them."""
