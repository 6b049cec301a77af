//! The OCI distribution protocol without I/O: bytes and headers in, values out.
