"""Speech encoders: a waveform in, one feature vector per frame out."""
