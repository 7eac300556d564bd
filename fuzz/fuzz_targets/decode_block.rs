//! Whatever decodes as a block encodes to the same bytes.

#![no_main]

use liotbchain_core::codec;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(block) = codec::decode_block(bytes) {
        assert_eq!(codec::encode_block(&block).as_deref(), Ok(bytes));
    }
    if let Ok(block) = codec::decode_kept_block(bytes) {
        assert_eq!(codec::encode_kept_block(&block), bytes);
    }
});
