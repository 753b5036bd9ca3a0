//! Placeholder until the server below is written.
