"""Validated value types."""
