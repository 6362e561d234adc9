"""Rotations, cameras and rays."""
