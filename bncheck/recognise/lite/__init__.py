"""What a TFLite file still shows of batch norm."""
