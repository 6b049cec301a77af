//! What a series of arrivals says of the way that the bytes came: pure, without clock or sockets.

pub mod fit;
