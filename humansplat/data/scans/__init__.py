"""Scans of people, from their files to pictures with a body.

They are found in the layouts of the known sets, read, brought into the house world, labelled, and seen from rings of
cameras; ``humansplat.data.prepare`` makes a data set of them.
"""
