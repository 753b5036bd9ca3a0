//! saescope
