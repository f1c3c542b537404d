//! Payloads of the extension protocol (BEP 10).
