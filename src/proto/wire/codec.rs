//! Bytes to messages and back, with every length checked before it is believed.
