"""Helpers of several tests lie in `support`, which is on the path: `import bundle_writer` works in each of them."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# a busy machine is no fault: what is too slow is found by the benchmarks
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
