"""Named backbones in TF-slim; the modules need the extra `bncheck[tf]`, this package itself imports nothing."""
