"""What all tests share: generated examples are not held to a time, for machines differ."""

from hypothesis import HealthCheck, settings

settings.register_profile("engram", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("engram")
