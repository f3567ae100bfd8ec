"""What an export needs beside the model: images to verify it on, and metadata."""
