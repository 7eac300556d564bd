//! No request body makes the receiver's readers panic, and Python's form of a text is its own Python form.

#![no_main]

#[path = "../../crates/liotbchain-server/src/items.rs"]
mod items;
#[path = "../../crates/liotbchain-http/src/json_keys.rs"]
mod json_keys;
#[path = "../../crates/liotbchain-http/src/json_text.rs"]
mod json_text;
#[path = "../../crates/liotbchain-server/src/python_json.rs"]
mod python_json;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let limits = items::Limits { items_max: 8, payload_size_max: 1_000 };
    if let Ok(items) = items::decode(bytes, limits) {
        for item in items {
            assert!(serde_json::from_str::<&serde_json::value::RawValue>(item.data).is_ok());
            if let Ok(form) = python_json::python_form(item.data) {
                assert_eq!(python_json::python_form(&form).as_ref(), Ok(&form));
            }
        }
    }
});
