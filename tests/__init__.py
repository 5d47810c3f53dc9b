"""Tests; their folders mirror the package."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
