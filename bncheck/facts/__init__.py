"""What is known, frozen: layers and sites, TFLite operators, measurements, findings and reports, errors."""
