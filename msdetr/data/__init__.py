"""COCO-format data sets, the embedded shapes data set, transforms and batching."""
