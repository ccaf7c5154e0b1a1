"""Thresholds that outlive a change of model: pairs scored by an old and a new model in, a map of
scores and thresholds with intervals out; and what the change does to rankings.
"""
