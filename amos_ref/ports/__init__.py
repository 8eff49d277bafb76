"""Amos for frameworks: each module is one self-contained file that imports its framework and nothing of amos_ref."""
