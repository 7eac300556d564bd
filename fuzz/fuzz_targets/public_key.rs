//! A key that is taken is written back as the same bytes, so that one key has one id.

#![no_main]

use liotbchain_core::PublicKey;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(key) = PublicKey::from_spki_der(bytes) {
        assert_eq!(key.spki_der(), bytes);
        assert_eq!(PublicKey::from_pem(&key.to_pem()), Ok(key));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = PublicKey::from_pem(text);
    }
});
