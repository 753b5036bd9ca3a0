//! From files to rows of tokens: what is read, what is refused, and how rows are packed.

mod arrow_files;
mod concatenate;
mod conversations;
mod documents;
mod encodings;
mod folders;
mod found;
mod hostile;
mod long;
mod memory;
mod nested;
mod packing;
mod parquet_files;
mod rows;
mod support;
