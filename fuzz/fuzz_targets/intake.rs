//! No bytes of a device make the gateway's intake panic, and what it takes is the device's own text, fit for a record.

#![no_main]

#[path = "../../crates/liotbchain-sender/src/fault.rs"]
mod fault;
#[path = "../../crates/liotbchain-sender/src/intake.rs"]
mod intake;
#[path = "../../crates/liotbchain-http/src/json_keys.rs"]
mod json_keys;
#[path = "../../crates/liotbchain-http/src/json_text.rs"]
mod json_text;
#[path = "../../crates/liotbchain-sender/src/members.rs"]
mod members;
#[path = "../../crates/liotbchain-sender/src/reading.rs"]
mod reading;
#[path = "../../crates/liotbchain-sender/src/senml.rs"]
mod senml;
#[path = "../../crates/liotbchain-sender/src/signed.rs"]
mod signed;

use intake::Form;
use reading::{Body, DeviceName};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let given = DeviceName::new("given").expect("it is a name");
    for form in [Form::Json, Form::Lines, Form::Senml] {
        for device in [None, Some(&given)] {
            let Ok(readings) = intake::decode(bytes, form, device, Some("key")) else { continue };
            let body = std::str::from_utf8(bytes).expect("what was taken is UTF-8");
            let mut behind = 0;
            for reading in readings {
                assert!(reading.identity.is_some_and(|it| it.len() <= reading::IDENTITY_SIZE_MAX));
                let Body::Plain(text) = reading.body else { continue };
                assert!(text.len() <= reading::READING_SIZE_MAX);
                // In the order of the body, none of it twice.
                behind += body[behind..].find(&text).expect("the text is the device's") + text.len();
                let record = format!("{{\"reading\":{text}}}");
                assert_eq!(json_keys::check_unambiguous(&record), Ok(()));
            }
        }
    }
});
