"""Native sources that msdetr builds on first use."""
