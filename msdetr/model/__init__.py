"""Backbone, neck, encoder, query sources, decoder and the detection model."""
