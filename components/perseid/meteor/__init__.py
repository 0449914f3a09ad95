"""METEOR: guidelines and answers of a mentor, self-assessment, self-evolution.

Source: METEOR (arXiv 2411.11933).
"""
