use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Vectors {
    message: String,
    good: Vec<Good>,
    bad: Vec<Bad>,
    rsa_bad_salt: String,
    rsa_pkcs1v15: String,
    rsa_pkcs1_pem: String,
}

#[derive(Deserialize)]
struct Good {
    name: String,
    public_key: String,
    signatures: Vec<String>,
}

#[derive(Deserialize)]
struct Bad {
    name: String,
    public_key: String,
    error: String,
}

/// Keys and signatures made by Python's `cryptography`; see `testdata/README.md`.
fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../../testdata/keys/public_keys.json")).unwrap()
}

fn verifies(key: &PublicKey, message: &str, signature: &str) -> bool {
    key.verify(message.as_bytes(), &STANDARD.decode(signature).unwrap()).is_ok()
}

#[test]
fn verifies_what_another_library_signed_and_no_flipped_bit_of_it() {
    let Vectors { message, good, .. } = vectors();
    assert_eq!(good.len(), 5);
    for Good { name, public_key, signatures } in good {
        let key = PublicKey::from_pem(&public_key).unwrap();
        assert_eq!(key.algorithm().to_string(), name);
        assert_eq!(key.to_pem(), public_key);
        assert_eq!(key.key_id(), KeyId(sha256(&[key.spki_der()])));
        for signature in signatures {
            let signature = STANDARD.decode(signature).unwrap();
            assert_eq!(key.verify(message.as_bytes(), &signature), Ok(()), "{name}");
            for byte in [0, signature.len() / 2, signature.len() - 1] {
                let mut flipped = signature.clone();
                flipped[byte] ^= 1;
                assert!(key.verify(message.as_bytes(), &flipped).is_err(), "{name}: byte {byte}");
            }
            assert!(key.verify(&signature, &signature).is_err());
            assert!(key.verify(message.as_bytes(), &signature[1..]).is_err());
            assert!(key.verify(message.as_bytes(), &[]).is_err());
        }
    }
}

#[test]
fn each_rule_for_keys_has_its_error() {
    let Vectors { bad, .. } = vectors();
    assert!(bad.len() > 30);
    for Bad { name, public_key, error: expected } in bad {
        let error = PublicKey::from_pem(&public_key).expect_err(&name);
        let variant = format!("{error:?}");
        let variant = variant.split([' ', '(']).next().unwrap();
        assert!(
            expected.split('|').any(|expected| expected == variant),
            "{name}: {error:?}, expected {expected}"
        );
    }
}

#[test]
fn refuses_other_paddings_and_salts() {
    let Vectors { message, good, rsa_bad_salt, rsa_pkcs1v15, .. } = vectors();
    let key = PublicKey::from_pem(&good[0].public_key).unwrap();
    assert!(verifies(&key, &message, &good[0].signatures[0]));
    assert!(!verifies(&key, &message, &rsa_bad_salt));
    assert!(!verifies(&key, &message, &rsa_pkcs1v15));
}

#[test]
fn both_lengths_of_salt_verify_in_any_order() {
    let Vectors { message, good, rsa_bad_salt, .. } = vectors();
    let key = PublicKey::from_pem(&good[0].public_key).unwrap();
    let [max_salt, digest_salt] = &good[0].signatures[..] else { panic!("one signature for each salt") };
    for signature in [digest_salt, digest_salt, max_salt, max_salt, digest_salt] {
        assert!(verifies(&key, &message, signature));
        assert!(!verifies(&key, &message, &rsa_bad_salt));
    }
}

#[test]
fn reads_pem_as_clients_of_the_original_send_it() {
    let Vectors { good, rsa_pkcs1_pem, .. } = vectors();
    let pem = &good[0].public_key;
    let key = PublicKey::from_pem(pem).unwrap();
    let other = &good[4].public_key;
    for variant in [
        pem.replace('\n', "\r\n"),
        pem.replace('\n', ""),
        pem.trim_end().to_owned(),
        format!("leading text\n{pem}trailing text"),
        format!("{pem}{other}"),
        rsa_pkcs1_pem,
    ] {
        assert_eq!(PublicKey::from_pem(&variant).as_ref(), Ok(&key), "{variant}");
    }
}

/// RFC 8032, section 5.1.7: S must be below the group's order: S + L is refused.
#[test]
fn refuses_a_malleated_ed25519_signature() {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let Vectors { message, good, .. } = vectors();
    let key = PublicKey::from_pem(&good[4].public_key).unwrap();
    let mut signature = STANDARD.decode(&good[4].signatures[0]).unwrap();
    let mut carry = 0u16;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    assert!(key.verify(message.as_bytes(), &signature).is_err());
}
