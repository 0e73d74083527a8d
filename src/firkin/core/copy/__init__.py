"""Copying files and trees between this host and containers, their own or other processes'."""
