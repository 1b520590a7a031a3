"""Errors of networks in training on faces they never see."""
