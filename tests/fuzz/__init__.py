"""Damaged files of every format through the whole of `inspect`: what becomes of them, and what must not."""
