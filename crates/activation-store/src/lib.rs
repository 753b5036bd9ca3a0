//! From documents to activations: streaming, packing, ring buffer.
