"""Engines write and score text: one protocol, one file per backend."""
