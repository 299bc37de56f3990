"""Helpers of several tests lie in `support`, which is on the path: `import bundle_writer` works in each of them."""
