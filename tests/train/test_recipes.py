"""Every recipe in configs/ loads, plans its memory at full size, and trains when made small."""

from __future__ import annotations
