"""Scores of models that mean something: unbiased pass@k with intervals, paired comparisons, calibration of evaluators.

`harness.evaluate` makes and judges the answers; everything else here is pure arithmetic on its records.
"""
