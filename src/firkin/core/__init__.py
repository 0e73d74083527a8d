"""Containers: lowering, processes, stdio."""
