//! No export makes the reader panic.

#![no_main]

use liotbchain_core::export::Reader;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut reader = Reader::default();
    for line in text.lines() {
        if reader.push(line).is_err() {
            return;
        }
    }
    let _ = reader.finish();
});
