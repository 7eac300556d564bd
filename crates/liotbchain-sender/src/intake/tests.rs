use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_core::transaction::PAYLOAD_SIZE_MAX;
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use super::*;
use crate::{
    json_keys::check_unambiguous,
    reading::DEVICE_NAME_SIZE_MAX,
    signer::{KeyKind, SigningKey},
};

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(KeyKind::Ed25519).unwrap());

fn name(name: &str) -> DeviceName {
    DeviceName::new(name).unwrap()
}

fn take(body: &str, form: Form) -> Result<Vec<Reading>, IntakeError> {
    decode(body.as_bytes(), form, None, None)
}

fn one(body: &str) -> Reading {
    let mut readings = take(body, Form::Json).unwrap();
    assert_eq!(readings.len(), 1, "{body}");
    readings.remove(0)
}

fn text(reading: &Reading) -> &str {
    match &reading.body {
        Body::Plain(text) | Body::Bare(text) => text,
        Body::Signed(statement, _) => &statement.payload,
    }
}

fn texts(body: &str, form: Form) -> Vec<String> {
    let readings = decode(body.as_bytes(), form, Some(&name("d")), None).unwrap();
    readings.iter().map(|reading| text(reading).to_owned()).collect()
}

fn code(body: &str, form: Form) -> &'static str {
    take(body, form).unwrap_err().code()
}

fn faults(body: &str, form: Form) -> Vec<(usize, &'static str)> {
    take(body, form).unwrap_err().faults().iter().map(|(index, fault)| (*index, fault.code())).collect()
}

/// As the gateway builds it, with the longest head that it can have.
fn record(text: &str) -> String {
    let device = "\\\"".repeat(DEVICE_NAME_SIZE_MAX);
    let number = u64::MAX;
    format!(
        r#"{{"device":"{device}","received_ms":{number},"boot":{number},"counter":{number},"reading":{text}}}"#
    )
}

fn signed(member: &str, payload: &str) -> Value {
    signed_by(&KEY, member, payload)
}

fn signed_by(key: &SigningKey, member: &str, payload: &str) -> Value {
    let signature = STANDARD.encode(key.sign(payload.as_bytes()));
    let public_key = key.public_key().to_pem();
    json!({member: payload, "signature": signature, "public_key": public_key})
}

/// The seed's form, where the value itself stands in the item.
fn signed_data(data: &str) -> String {
    signed("data", data).to_string().replace(&json!(data).to_string(), data)
}

fn with(mut item: Value, key: &str, value: Value) -> String {
    match value {
        Value::Null => drop(item.as_object_mut().unwrap().remove(key)),
        value => item[key] = value,
    }
    item.to_string()
}

#[test]
fn keeps_the_bytes_of_a_reading() {
    let sent = "{ \"\\u0064evice\":\"é \\u00e9\" ,\n\"v\":  1.10, \"big\":123456789012345678901234567890,\"half\":\"\\ud83d\", \"l\":[1 ,{}] }";
    let reading = one(&format!("\u{feff} {sent}\r\n"));
    assert_eq!((text(&reading), reading.device.as_str()), (sent, "é é"));
    assert_eq!(texts(&format!(" [ {sent} ,{{}}, {sent}] "), Form::Json), [sent, "{}", sent]);
    assert_eq!(texts("{\"a\" : 1}\r\n\n \t{\"b\":2} \n", Form::Lines), ["{\"a\" : 1}", "{\"b\":2}"]);
    assert_eq!(texts("{\"a\":1}", Form::Lines), ["{\"a\":1}"]);
}

#[test]
fn refuses_what_holds_no_readings() {
    for (body, form, expected) in [
        ("", Form::Json, "not_json"),
        (" \n", Form::Json, "not_json"),
        ("{", Form::Json, "not_json"),
        ("{}{}", Form::Json, "not_json"),
        ("[{}", Form::Json, "not_json"),
        ("[{},]", Form::Json, "not_json"),
        ("[{}] 1", Form::Json, "not_json"),
        ("{\"v\": NaN}", Form::Json, "not_json"),
        ("{'v': 1}", Form::Json, "not_json"),
        ("device=d&v=1", Form::Json, "not_json"),
        ("{\"a\":1}\n{\"b\":2}", Form::Json, "not_json"),
        ("[]", Form::Json, "empty_list"),
        ("", Form::Lines, "empty_list"),
        ("\n \r\n", Form::Lines, "empty_list"),
        ("{}\n{", Form::Lines, "not_json"),
        ("{\"a\":\n1}", Form::Lines, "not_json"),
        ("{} {}", Form::Lines, "not_json"),
    ] {
        assert_eq!(code(body, form), expected, "{body:?}");
    }
    let refused = take("{\"device\":\"d\"}\n\n{\"device\":\"d\",}", Form::Lines).unwrap_err().to_string();
    assert!(refused.ends_with("at line 3 column 15"), "{refused}");
    for body in [&b"{\"device\":\"\xe9\"}"[..], b"\xff\xfe{\0}\0", b"[{\"a\":1},\xc3"] {
        assert_eq!(decode(body, Form::Json, None, None).unwrap_err().code(), "not_utf8");
    }
}

#[test]
fn refuses_a_reading_by_the_rule_it_breaks() {
    let long = "x".repeat(IDENTITY_SIZE_MAX + 1);
    for (body, expected) in [
        ("1", "not_an_object"),
        ("\"21.5\"", "not_an_object"),
        ("null", "not_an_object"),
        ("{}", "missing_device"),
        ("{\"value\":{\"device\":\"d\"}}", "missing_device"),
        ("{\"device\":7}", "bad_device"),
        ("{\"device\":null}", "bad_device"),
        ("{\"device\":[\"d\"]}", "bad_device"),
        ("{\"device\":\"\"}", "bad_device"),
        ("{\"device\":\"a\\nb\"}", "bad_device"),
        ("{\"device\":\"+/up\"}", "bad_device"),
        ("{\"device\":\"\\ud83d\"}", "bad_device"),
        (&format!("{{\"device\":\"{long}\"}}"), "bad_device"),
        ("{\"device\":\"d\",\"v\":1,\"v\":1}", "duplicate_key"),
        ("{\"device\":\"d\",\"\\u0064evice\":\"e\"}", "duplicate_key"),
        ("{\"device\":\"d\",\"v\":[{\"a\":{\"x\":1,\"x\":2}}]}", "duplicate_key"),
        ("{\"device\":\"d\",\"reading_id\":1.5}", "bad_reading_id"),
        ("{\"device\":\"d\",\"reading_id\":\"\"}", "bad_reading_id"),
        ("{\"device\":\"d\",\"reading_id\":[1]}", "bad_reading_id"),
        ("{\"device\":\"d\",\"reading_id\":true}", "bad_reading_id"),
        (&format!("{{\"device\":\"d\",\"reading_id\":\"{long}\"}}"), "bad_reading_id"),
    ] {
        assert_eq!(code(body, Form::Json), expected, "{body}");
        assert_eq!(faults(body, Form::Json), [(0, expected)], "{body}");
        assert_eq!(code(&format!("[{body}]"), Form::Json), "invalid_items", "{body}");
        assert_eq!(faults(&format!("[{{\"device\":\"d\"}},{body}]"), Form::Json), [(1, expected)], "{body}");
    }
}

#[test]
fn names_every_reading_at_fault_and_its_line() {
    let body = "{\"device\":\"d\"}\n\n{}\n3\n{\"device\":\"d\",\"a\":1,\"a\":2}";
    let refused = take(body, Form::Lines).unwrap_err();
    assert_eq!(
        faults(body, Form::Lines),
        [(1, "missing_device"), (2, "not_an_object"), (3, "duplicate_key")]
    );
    assert!(
        refused.to_string().starts_with("3 of 4 readings at fault, none was taken; item 1: "),
        "{refused}"
    );
    assert!(refused.faults()[2].1.to_string().contains("at line 5 column 21"), "{refused:?}");
    let many = format!("[{}]", vec!["{}"; READINGS_MAX].join(","));
    assert_eq!(faults(&many, Form::Json).len(), LISTED_MAX);
    assert!(take(&many, Form::Json).unwrap_err().to_string().starts_with("at least 100 of 8000 "));
}

#[test]
fn the_given_device_goes_before_what_a_reading_says() {
    let given = name("given");
    for body in ["{}", "{\"device\":\"own\"}", "{\"device\":7}", "{\"device\":\"+\"}"] {
        let readings = decode(body.as_bytes(), Form::Json, Some(&given), None).unwrap();
        assert_eq!((&readings[0].device, text(&readings[0])), (&given, body));
    }
    assert_eq!(one("{\"device\":\"own\"}").device, name("own"));
}

#[test]
fn takes_the_identity_that_the_device_gives() {
    for (members, expected) in [
        ("", None),
        (",\"reading_id\":\"a\\u0062\"", Some("ab")),
        (",\"reading_id\":-17", Some("-17")),
        (",\"reading_id\":null", None),
        (",\"reading_id\":null,\"counter\":5", Some("5")),
        (",\"counter\":5,\"reading_id\":\"x\"", Some("x")),
        (",\"counter\":0", Some("0")),
        (",\"counter\":5.0", None),
        (",\"counter\":1e3", None),
        (",\"counter\":\"5\"", None),
        (",\"counter\":{\"reading_id\":5}", None),
    ] {
        let body = format!("{{\"device\":\"d\"{members}}}");
        assert_eq!(one(&body).identity.as_deref(), expected, "{body}");
    }
}

#[test]
fn an_id_beside_the_body_goes_before_those_within() {
    let identities = |body: &str, form, key: &str| {
        let readings = decode(body.as_bytes(), form, None, Some(key)).unwrap();
        Vec::from_iter(readings.into_iter().map(|reading| reading.identity.unwrap()))
    };
    let reading = "{\"device\":\"d\",\"counter\":5}";
    assert_eq!(identities(reading, Form::Json, "k"), ["k"]);
    assert_eq!(identities(&format!("[{reading}]"), Form::Json, "k"), ["k:0"]);
    assert_eq!(identities(&format!("{reading}\n\n{reading}"), Form::Lines, "k"), ["k:0", "k:1"]);
    assert_eq!(identities("[{\"bn\":\"d\",\"v\":1}]", Form::Senml, "k"), ["k"]);
    let longest = "k".repeat(IDEMPOTENCY_KEY_SIZE_MAX);
    let list = format!("[{}]", vec![reading; READINGS_MAX].join(","));
    assert!(identities(&list, Form::Json, &longest).iter().all(|it| it.len() <= IDENTITY_SIZE_MAX));
    for key in ["", "a\nb", &format!("{longest}k")] {
        let refused = decode(reading.as_bytes(), Form::Json, None, Some(key)).unwrap_err();
        assert_eq!(refused.code(), "bad_idempotency_key", "{key:?}");
    }
}

#[test]
fn a_reading_of_the_largest_size_fits_into_a_record() {
    let sized = |size: usize| format!("{{\"v\":\"{}\"}}", "x".repeat(size - "{\"v\":\"\"}".len()));
    let largest = sized(READING_SIZE_MAX);
    assert_eq!(texts(&largest, Form::Json), [largest.as_str()]);
    assert!(record(&largest).len() <= PAYLOAD_SIZE_MAX);
    let larger = sized(READING_SIZE_MAX + 1);
    let device = name("d");
    let pack = format!("[{{\"n\":\"d\",\"vs\":\"{}\"}}]", "x".repeat(READING_SIZE_MAX));
    for (body, form) in [
        (larger.clone(), Form::Json),
        (larger.clone(), Form::Lines),
        (format!("[{larger}]"), Form::Json),
        (pack, Form::Senml),
    ] {
        let refused = decode(body.as_bytes(), form, Some(&device), None).unwrap_err();
        assert_eq!(refused.faults()[0].1.code(), "payload_too_large", "{refused}");
    }
}

#[test]
fn a_reading_of_the_deepest_kind_fits_into_a_record() {
    let nested = |depth: usize| format!("{}0{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let deepest = nested(READING_DEPTH_MAX);
    assert_eq!(texts(&deepest, Form::Json), [deepest.as_str()]);
    assert_eq!(texts(&format!("[{deepest}]"), Form::Json), [deepest.as_str()]);
    assert_eq!(texts(&deepest, Form::Lines), [deepest.as_str()]);
    assert_eq!(check_unambiguous(&record(&deepest)), Ok(()));
    for depth in [READING_DEPTH_MAX + 1, 100_000] {
        let deeper = nested(depth);
        assert!(check_unambiguous(&record(&deeper)).is_err());
        for (body, form) in
            [(deeper.clone(), Form::Json), (format!("[{deeper}]"), Form::Json), (deeper.clone(), Form::Lines)]
        {
            assert_eq!(code(&body, form), "too_deep", "{depth}");
            let refused = take(&body, form).unwrap_err().to_string();
            assert!(refused.contains("deeper than 99 levels at line 1 column "), "{refused}");
        }
    }
}

#[test]
fn data_that_a_device_signed_may_be_as_deep_as_at_the_receiver() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let deepest = signed_data(&nested(JSON_DEPTH_MAX));
    for (body, form) in
        [(deepest.clone(), Form::Json), (format!("[{deepest}]"), Form::Json), (deepest.clone(), Form::Lines)]
    {
        assert_eq!(texts(&body, form), [nested(JSON_DEPTH_MAX)]);
    }
    let deeper = signed_data(&nested(JSON_DEPTH_MAX + 1));
    for (body, form) in
        [(deeper.clone(), Form::Json), (format!("[{deeper}]"), Form::Json), (deeper.clone(), Form::Lines)]
    {
        assert_eq!(code(&body, form), "too_deep");
    }
    let unsigned = format!("{{\"device\":\"d\",\"data\":{}}}", nested(JSON_DEPTH_MAX));
    assert_eq!(code(&unsigned, Form::Json), "too_deep");
}

#[test]
fn keys_beyond_the_size_of_a_record_are_not_remembered() {
    let members = |count: usize| Vec::from_iter((0..count).map(|key| format!("\"{key}\":1"))).join(",");
    let twice = |count: usize| format!("{{\"device\":\"d\",{},\"device\":\"d\"}}", members(count));
    assert_eq!(code(&twice(5_000), Form::Json), "duplicate_key");
    // It would be found, were they.
    assert_eq!(faults(&twice(20_000), Form::Json), [(0, "payload_too_large")]);
    let long = "é".repeat(READING_SIZE_MAX);
    assert_eq!(code(&format!("{{\"device\":\"d\",\"{long}\":1}}"), Form::Json), "payload_too_large");
    let nested = format!("{{\"device\":\"d\",\"v\":[{{{}}}]}}", members(20_000));
    assert_eq!(
        faults(&format!("[{{\"device\":\"d\"}},{nested},1]"), Form::Json),
        [(1, "payload_too_large"), (2, "not_an_object")]
    );
    let hidden =
        signed_data("{\"device\":\"d\"}").replacen('{', &format!("{{\"data\":{{{}}},", members(20_000)), 1);
    assert_eq!(code(&hidden, Form::Json), "payload_too_large");
    let pack = format!("[{{\"n\":\"d\",\"v\":1,{},\"v\":1}}]", members(20_000));
    assert_eq!(code(&pack, Form::Senml), "payload_too_large");
}

#[test]
fn takes_so_many_readings_and_no_more() {
    let list = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
    assert_eq!(texts(&list(READINGS_MAX), Form::Json).len(), READINGS_MAX);
    assert_eq!(code(&list(READINGS_MAX + 1), Form::Json), "too_many_items");
    assert_eq!(code(&"{}\n".repeat(READINGS_MAX + 1), Form::Lines), "too_many_items");
}

#[test]
fn keeps_what_a_device_signed_with_any_key() {
    for kind in [KeyKind::Ed25519, KeyKind::Rsa, KeyKind::P256] {
        let key = SigningKey::generate(kind).unwrap();
        let payload = "{ \"device\" : \"é\",\n\"v\":1.10, \"counter\":7}";
        let reading = one(&signed_by(&key, "payload", payload).to_string());
        assert_eq!((reading.device.as_str(), reading.identity.as_deref()), ("é", Some("7")), "{kind}");
        let Body::Signed(statement, public_key) = &reading.body else { panic!("{reading:?}") };
        assert_eq!((statement.payload.as_str(), &**public_key), (payload, key.public_key()));
        assert_eq!(public_key.verify(payload.as_bytes(), &statement.signature), Ok(()));
    }
}

#[test]
fn keeps_data_as_it_stands_in_the_request() {
    let data = "{\"device\": \"Raspberry Pi 1\", \"distance\": 123, \"timestamp\": 1717979369.0}";
    assert_eq!(text(&one(&signed_data(data))), data);
    assert_eq!(one(&signed_data(data)).device, name("Raspberry Pi 1"));
    let list = format!("[{},{},{{\"device\":\"plain\"}}]", signed_data(data), signed_data("[1 ,2]"));
    let readings = take(&list, Form::Json).unwrap();
    assert_eq!(Vec::from_iter(readings.iter().map(text)), [data, "[1 ,2]", "{\"device\":\"plain\"}"]);
    assert!(matches!(readings[2].body, Body::Plain(_)));
    let spaced = signed_data(data).replace("123,", "123 ,");
    assert_eq!(code(&spaced, Form::Json), "invalid_signature");
}

#[test]
fn names_a_device_by_its_key_where_it_signed_no_name() {
    let by_key = format!("key-{}", &KEY.public_key().key_id().to_string()[..16]);
    for payload in ["{}", "21.5", "[{\"device\":\"d\"}]", "{\"device\":7}", "{\"device\":\"+\"}"] {
        assert_eq!(one(&signed("payload", payload).to_string()).device.as_str(), by_key, "{payload}");
    }
    let body = signed("payload", "{\"device\":\"own\"}").to_string();
    let readings = decode(body.as_bytes(), Form::Json, Some(&name("given")), None).unwrap();
    assert_eq!(readings[0].device, name("given"));
}

#[test]
fn refuses_what_the_receiver_would_not_take_as_signed() {
    let good = || signed("payload", "{\"device\":\"d\"}");
    let other = SigningKey::generate(KeyKind::Ed25519).unwrap();
    let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----\n";
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    for (body, expected) in [
        (with(good(), "payload", json!("{\"device\":\"e\"}")), "invalid_signature"),
        (with(good(), "public_key", json!(other.public_key().to_pem())), "invalid_signature"),
        (with(good(), "signature", json!(STANDARD.encode([0; 64]))), "invalid_signature"),
        (with(good(), "signature", json!("")), "invalid_signature"),
        (with(good(), "signature", json!("AA-_")), "bad_base64"),
        (with(good(), "signature", json!("AAA")), "bad_base64"),
        (with(good(), "signature", json!(7)), "bad_signature_type"),
        (with(good(), "public_key", json!("no key")), "bad_public_key"),
        (with(good(), "public_key", json!(7)), "bad_public_key_type"),
        (with(good(), "public_key", json!(private)), "private_key_sent"),
        (with(good(), "payload", Value::Null), "missing_key"),
        (with(good(), "payload", json!({"device": "d"})), "bad_payload_type"),
        (with(good(), "data", json!(1)), "two_payloads"),
        (with(good(), "device", json!("d")), "unknown_key"),
        (with(good(), "key_id", json!("00")), "unknown_key"),
        (good().to_string().replace("public_key", "key_id"), "key_not_known"),
        (signed("payload", "{\"a\":1,\"a\":1}").to_string(), "duplicate_key"),
        (signed_data("{\"a\":1,\"a\":1}"), "duplicate_key"),
        (signed("payload", "{\"a\":1").to_string(), "bad_payload"),
        (signed("payload", "21.5 Cel").to_string(), "bad_payload"),
        (signed("payload", "").to_string(), "bad_payload"),
        (signed("payload", &nested(JSON_DEPTH_MAX + 1)).to_string(), "bad_payload"),
        (signed("payload", &" ".repeat(PAYLOAD_SIZE_MAX)).to_string(), "bad_payload"),
        (signed("payload", &format!("1{}", " ".repeat(PAYLOAD_SIZE_MAX))).to_string(), "payload_too_large"),
        (signed("payload", "{\"reading_id\":{}}").to_string(), "bad_reading_id"),
    ] {
        assert_eq!(code(&body, Form::Json), expected, "{body:.300}");
        let refused = take(&format!("[{body}]"), Form::Json).unwrap_err();
        assert_eq!(refused.faults()[0].1.code(), expected, "{refused}");
        assert!(!refused.to_string().contains("MC4CAQ"), "{refused}");
    }
    assert_eq!(one(&signed("payload", &nested(JSON_DEPTH_MAX)).to_string()).identity, None);
}

#[test]
fn a_member_of_such_a_name_alone_signs_nothing() {
    for body in [
        "{\"device\":\"d\",\"signature\":\"mine\"}",
        "{\"device\":\"d\",\"payload\":1,\"data\":2}",
        "{\"device\":\"d\",\"public_key\":\"mine\",\"payload\":\"x\"}",
        "{\"device\":\"d\",\"signature\":\"mine\",\"key_id\":3}",
    ] {
        assert!(matches!(one(body).body, Body::Plain(_)), "{body}");
    }
}

#[test]
fn a_pack_is_one_reading_with_its_bytes() {
    let pack = "[ {\"bn\":\"urn:dev:ow:10e2073a01080063:\",\"bt\":1.276020076e+09,\n\"n\":\"voltage\",\"u\":\"V\",\"v\":120.10},{\"n\":\"current\",\"u\":\"A\",\"v\":1.2} ]";
    let readings = take(&format!("\n{pack} "), Form::Senml).unwrap();
    assert_eq!(readings.len(), 1);
    let Reading { device, identity, body } = &readings[0];
    assert_eq!((device.as_str(), identity), ("urn:dev:ow:10e2073a01080063", &None));
    assert_eq!(*body, Body::Plain(pack.to_owned()));
    assert_eq!(check_unambiguous(&record(pack)), Ok(()));
    let several = "[{\"bn\":\"a:\",\"n\":\"v\",\"v\":1},{\"bn\":\"b:\",\"n\":\"v\",\"v\":1}]";
    assert_eq!(code(several, Form::Senml), "several_devices");
    assert_eq!(texts(several, Form::Senml), [several]);
}

fn json_text() -> impl Strategy<Value = String> {
    let key = select(vec!["a", "b", "\\u0061", "device", "reading_id", "counter", "data", "é"]);
    let scalar = prop_oneof![
        select(vec!["1", "-0.10", "1e5", "\"x\"", "\"\\ud83d\"", "true", "null", "{}", "[]", "\"{\""])
            .prop_map(String::from),
        "\"[a-zé ]{0,4}\"",
    ];
    let value = scalar.prop_recursive(5, 40, 5, move |inner| {
        let member = ("[ \n]{0,1}", key.clone(), inner.clone())
            .prop_map(|(space, key, value)| format!("{space}\"{key}\"{space}:{space}{value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|all| format!("[{}]", all.join(" ,"))),
            prop::collection::vec(member, 0..5).prop_map(|all| format!("{{{}}}", all.join(","))),
        ]
    });
    ("[ \n]{0,2}", value, "[ \n]{0,2}").prop_map(|(before, value, after)| before + &value + &after)
}

fn damaged_text() -> impl Strategy<Value = String> {
    let symbol = select("\"\\{}[]:,01.-eun \n\u{1}é".chars().collect::<Vec<_>>());
    (json_text(), any::<prop::sample::Index>(), symbol).prop_map(|(text, index, symbol)| {
        let mut chars: Vec<char> = text.chars().collect();
        let at = index.index(chars.len());
        chars[at] = symbol;
        chars.into_iter().collect()
    })
}

proptest! {
    #[test]
    fn what_is_taken_is_the_devices_bytes_and_makes_a_good_record(
        body in prop_oneof![json_text(), damaged_text(), any::<String>()],
        form in select(vec![Form::Json, Form::Lines, Form::Senml]),
        given in any::<bool>(),
    ) {
        let device = given.then(|| name("given"));
        let Ok(readings) = decode(body.as_bytes(), form, device.as_ref(), None) else { return Ok(()) };
        prop_assert!(!readings.is_empty());
        let mut from = 0;
        for reading in &readings {
            let text = text(reading);
            let at = body[from..].find(text);
            prop_assert!(at.is_some(), "{text} is not in {body}, or out of order");
            from += at.unwrap_or_default() + text.len();
            prop_assert_eq!(check_unambiguous(&record(text)), Ok(()));
        }
    }

    #[test]
    fn takes_every_object_that_the_receiver_would(body in prop_oneof![json_text(), damaged_text()]) {
        let device = name("given");
        let taken = decode(body.as_bytes(), Form::Json, Some(&device), None);
        let is_object = body.trim_ascii_start().starts_with('{');
        let bad_identity = matches!(&taken, Err(error) if error.code() == "bad_reading_id");
        if is_object && !bad_identity {
            prop_assert_eq!(taken.is_ok(), check_unambiguous(&body).is_ok(), "{}", body);
        }
    }

    #[test]
    fn takes_any_bytes_without_panic(body in any::<Vec<u8>>(), form in select(vec![Form::Json, Form::Lines, Form::Senml])) {
        let _ = decode(&body, form, None, Some("key"));
    }
}
