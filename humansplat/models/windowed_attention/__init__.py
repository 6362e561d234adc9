"""Projection-aware windowed cross-attention, HumanSplat section 3.4: one interface, several implementations."""

from humansplat.models.windowed_attention.attention import (
    Backend,
    Windows,
    attend,
    plan_windows,
    windowed_attention,
)

__all__ = ["Backend", "Windows", "attend", "plan_windows", "windowed_attention"]
