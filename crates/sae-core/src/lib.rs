//! Sparse autoencoders: architectures, sparse codes, SAELens files.
