"""Mizzen: what runs in pods and what users import. Heavy libraries load only where they are used."""

__version__ = "0.1.0"
