"""What tests share: no fixtures, only what they hand out."""
