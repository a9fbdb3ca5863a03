//! Floor 3: QUIC with mutual TLS by raw public keys.
