"""Focal, L1 and GIoU losses and the supervision branches."""
