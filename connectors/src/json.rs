//! JSON payloads to Arrow columns.
