"""Adapting a model to a site: folds, trainings, the decision."""
