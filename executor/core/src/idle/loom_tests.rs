//! Models of the park protocol.
