"""Detection on images and data sets, shared by evaluation, prediction and training."""
