//! Tests of tokens, cells and handles.
